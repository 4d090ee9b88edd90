from django.apps import AppConfig


class CampaignsConfig(AppConfig):
    """Annotation efforts."""

    name = "thawloop.campaigns"
    label = "campaigns"

    def ready(self) -> None:
        """Grant permissions to the roles."""
        from thawloop.core.roles import grant_to_roles

        grant_to_roles(
            "campaigns",
            lead={
                "add_landformclass",
                "change_landformclass",
                "add_campaign",
                "change_campaign",
                "sync_campaign",
            },
        )
