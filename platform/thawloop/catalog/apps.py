from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "thawloop.catalog"
    label = "catalog"

    def ready(self) -> None:
        """Grant permissions to the roles."""
        from thawloop.core.roles import grant_to_roles

        things = ("region", "modality", "scene", "tilegrid")
        lead = {f"{verb}_{thing}" for verb in ("add", "change") for thing in things}
        grant_to_roles("catalog", lead=lead | {"add_tile"})
