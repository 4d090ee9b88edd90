from django.apps import AppConfig


class ReleasesConfig(AppConfig):
    name = "thawloop.releases"
    label = "releases"

    def ready(self) -> None:
        """Grant permissions to the roles."""
        from thawloop.core.roles import grant_to_roles

        grant_to_roles("releases", lead={"add_release", "change_release"})
