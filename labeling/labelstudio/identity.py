"""Whose project it is: a project in Label Studio is used only if its description holds its campaign's mark.

Label Studio counts projects, tasks and annotations from 1. Its database lost, restored from a backup, or another
server's address: the same numbers then mean something else. So a project is known by a random mark in its description,
made for it, and numbers of tasks and annotations count only within the project that they were given in
(`Campaign.ls_generation`).
"""

import re
import secrets
from typing import Any

from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import ExchangeStopped, ForeignProject, LabelStudioMissing, ProjectGone
from thawloop.campaigns.models import Campaign
from thawloop.core.services import audit

Json = dict[str, Any]
_MARK = re.compile(r"thawloop:[0-9a-f]{24}")


def mark_of(campaign: Campaign) -> str:
    """The mark of the campaign's project, made and kept before the project itself is made."""
    if not campaign.ls_mark:
        campaign.ls_mark = f"thawloop:{secrets.token_hex(12)}"
        campaign.save(update_fields=["ls_mark"])
    return campaign.ls_mark


def own_project(campaign: Campaign, client: Client) -> Json:
    """The campaign's project in full, if what has its number is really its own.

    Raises:
        ProjectGone: There is no project of that number.
        ForeignProject: The project of that number is somebody else's.
    """
    number = campaign.ls_project_id
    assert number is not None
    try:
        project = client.project(number)
    except LabelStudioMissing as error:
        raise stopped(
            campaign,
            ProjectGone(
                f"Project {number} of campaign {campaign.name} is not in Label Studio at {client.url}: it was deleted, "
                "Label Studio's database was lost, or this is another server. Its annotations and labels are safe "
                f"here. Correct LABEL_STUDIO_URL, or go on in a new project: {_new_project(campaign)}."
            ),
        ) from error
    description = str(project.get("description") or "")
    if not campaign.ls_mark:
        _note_earlier_mark(campaign, description)
    if not campaign.ls_mark or campaign.ls_mark not in description:
        raise stopped(
            campaign,
            ForeignProject(
                f"Project {number} in Label Studio at {client.url} ({str(project.get('title'))[:50]!r}) does not hold "
                f"the mark of campaign {campaign.name}, so nothing is read from it or written to it: Label Studio's "
                "database was lost, or this is another server. Annotations and labels are safe here. Correct "
                f"LABEL_STUDIO_URL, or go on in a new project: {_new_project(campaign)}. If it is the campaign's "
                f"project and somebody edited its description, put {campaign.ls_mark or 'its mark'} back into it."
            ),
        )
    return project


def stopped(campaign: Campaign, error: ExchangeStopped, removals: int | None = None) -> ExchangeStopped:
    """Record for leads why the exchange stopped; returns the error, to be raised."""
    sentence = str(error)
    if (campaign.ls_stopped, campaign.ls_removals) != (sentence, removals):
        campaign.ls_stopped, campaign.ls_removals = sentence, removals
        campaign.save(update_fields=["ls_stopped", "ls_removals"])
        audit("labeling.stop_exchange", campaign, after={"removals": removals}, reason=sentence)
    return error


def resumed(campaign: Campaign) -> None:
    """Record that the exchange has resumed."""
    if campaign.ls_stopped:
        before = {"stopped": campaign.ls_stopped}
        campaign.ls_stopped, campaign.ls_removals = "", None
        campaign.save(update_fields=["ls_stopped", "ls_removals"])
        audit("labeling.resume_exchange", campaign, before=before)


def _note_earlier_mark(campaign: Campaign, description: str) -> None:
    """Marks were not stored in earlier versions: take it from the description that such a version wrote."""
    found = _MARK.search(description)
    if found and description.startswith(f"Campaign {campaign.name} ("):
        campaign.ls_mark = found.group()
        campaign.save(update_fields=["ls_mark"])


def _new_project(campaign: Campaign) -> str:
    return f"`manage.py sync --campaign {campaign.name} --new-project`"
