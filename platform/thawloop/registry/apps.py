from django.apps import AppConfig


class RegistryConfig(AppConfig):
    """Models, and which of them is the champion."""

    name = "thawloop.registry"
    label = "registry"

    def ready(self) -> None:
        """Grant permissions to the roles."""
        from thawloop.core.roles import grant_to_roles

        grant_to_roles("registry", lead={"promote_modelversion", "add_promotion"})
