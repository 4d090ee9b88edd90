"""`manage.py rotate_secrets`: replace the secrets by which Label Studio authenticates itself."""

from argparse import ArgumentParser
from typing import Any

from labeling.labelstudio.projects import ensure_project
from labeling.labelstudio.secrets import rotate_secrets
from thawloop.campaigns.models import Campaign
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused


class Command(ThawloopCommand):
    """Replace the secrets of webhooks and ML backend, here and in Label Studio."""

    help = (
        "Replace the secrets that authenticate Label Studio's webhooks and its calls to the ML backend, and send "
        "every project in Label Studio the new ones. No process has to be restarted, and no work is lost: what "
        "annotators submit in between is found by the next sync. A project that cannot be updated now is updated "
        "by its next sync."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Why."""
        parser.add_argument("--reason", default="", help="for the audit trail")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Rotate, then bring every project up to date."""
        rotate_secrets(options["reason"])
        rows = []
        for campaign in Campaign.objects.filter(ls_project_id__isnull=False):
            try:
                ensure_project(campaign)
                outcome = "updated"
            except Refused as error:
                outcome = str(error)
            rows.append({"campaign": campaign.name, "project": campaign.ls_project_id, "label_studio": outcome})
        return {"secrets": "replaced", "projects": rows}
