from django.apps import AppConfig


class RegistryConfig(AppConfig):
    """Models, and who is champion."""

    name = "thawloop.registry"
    label = "registry"

    def ready(self) -> None:
        """Say what the roles may do here."""
        from thawloop.core.roles import grant_to_roles

        grant_to_roles("registry", lead={"promote_modelversion", "add_promotion"})
