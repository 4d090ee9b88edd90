"""A campaign's project in Label Studio: made once, found again after a crash, kept as the campaign wants it."""

from typing import Any
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.urls import reverse
from django.utils.crypto import salted_hmac

from labeling.labelstudio.client import Client
from labeling.labelstudio.config import labeling_config
from labeling.labelstudio.errors import LabelStudioMissing, LabelStudioRefused, ProjectGone
from labeling.locks import exclusive
from labeling.models import Campaign
from thawloop.core.errors import Refused
from thawloop.core.services import audit

log = structlog.get_logger(__name__)

SECRET_HEADER = "X-ThawLoop-Secret"  # the header's name, not the secret  # noqa: S105
WEBHOOK_ACTIONS = [
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
]
# By id, which is the order of acquisition: tasks are imported in it. Label Studio's `Uncertainty sampling` looks at one
# version's predictions only, and draws lots among tasks without one, or when a project has several members.
SAMPLING = "Sequential sampling"
VIEW = {"title": "In order of acquisition", "type": "list", "target": "tasks", "ordering": ["tasks:id"]}
VIEW_TITLES = (VIEW["title"], "By uncertainty")  # as earlier versions called it
# Not the name of the predictions shown: where they are the same, nothing is shown while the ML backend is down.
ML_BACKEND_TITLE = "ThawLoop"
ML_BACKEND_USER = "label-studio"


def ensure_project(campaign: Campaign, client: Client | None = None) -> int:
    """Make the campaign's project with its view, webhook and ML backend, or bring what is there up to date.

    Idempotent, and safe to kill anywhere: a project that was made but not noted is found by its mark.

    Returns:
        The project's id in Label Studio.

    Raises:
        Refused: The campaign cannot be shown, or the webhook secret is not set.
        ProjectGone: The project was deleted in Label Studio.
        LabelStudioUnavailable: Label Studio does not answer, or not to us.
    """
    if not settings.THAWLOOP_WEBHOOK_SECRET:
        raise Refused("THAWLOOP_WEBHOOK_SECRET is not set: choose a long random value, it keeps strangers out.")
    if client is None:
        with Client() as own:
            return ensure_project(campaign, own)
    config = labeling_config(campaign)
    with exclusive("project", campaign):
        campaign.refresh_from_db()
        found = _project(campaign, client, config)
        noted: dict[str, Any] = {
            "ls_view_id": _view(campaign, client),
            "ls_webhook_id": _webhook(campaign, client),
            "ls_ml_backend_id": _ml_backend(campaign, client),
        }
        noted["ls_shown"] = _shown(campaign, client)
        if any(getattr(campaign, name) != value for name, value in noted.items()):
            for name, value in noted.items():
                setattr(campaign, name, value)
            campaign.save(update_fields=list(noted))
    return int(found["id"])


def _mark(campaign: Campaign) -> str:
    """What tells this installation's project of this campaign from all others."""
    value = f"{campaign.pk}:{campaign.name}:{campaign.created.isoformat()}"
    return f"thawloop:{salted_hmac('labeling.project', value).hexdigest()[:24]}"


def _project(campaign: Campaign, client: Client, config: str) -> dict[str, Any]:
    if campaign.ls_project_id is None:
        mark = _mark(campaign)
        project = next((found for found in client.projects() if mark in (found.get("description") or "")), None)
        project = client.project(project["id"]) if project else client.create_project(_new_project(campaign, config))
        campaign.ls_project_id, campaign.ls_shown = project["id"], ""
        campaign.save(update_fields=["ls_project_id", "ls_shown"])
        audit("labeling.ensure_project", campaign, after={"ls_project_id": project["id"]})
    else:
        try:
            project = client.project(campaign.ls_project_id)
        except LabelStudioMissing as error:
            raise ProjectGone(
                f"Project {campaign.ls_project_id} of campaign {campaign.name} was deleted in Label Studio. "
                "Its annotations and labels are safe here. To go on with a new project, run "
                f"`manage.py sync --campaign {campaign.name} --new-project`."
            ) from error
    if project["sampling"] != SAMPLING:
        project = client.change_project(project["id"], {"sampling": SAMPLING})
    if project["label_config"].strip() != config:
        try:
            project = client.change_project(project["id"], {"label_config": config})
        except LabelStudioRefused as error:
            raise LabelStudioRefused(
                f"The interface of campaign {campaign.name} cannot be changed as its classes or modalities now ask "
                f"for: annotations in Label Studio use what would go. {error}"
            ) from error
    return project


def _new_project(campaign: Campaign, config: str) -> dict[str, Any]:
    return {
        "title": campaign.title[:50] if len(campaign.title) >= 3 else f"Campaign {campaign.name}",
        "description": f"Campaign {campaign.name} ({_mark(campaign)}: ThawLoop finds its project by this)",
        "label_config": config,
        "maximum_annotations": 1,
        "show_collab_predictions": True,
        "sampling": SAMPLING,
    }


def _view(campaign: Campaign, client: Client) -> int:
    assert campaign.ls_project_id is not None
    for view in client.views(campaign.ls_project_id):
        data = view.get("data") or {}
        if view["id"] == campaign.ls_view_id or data.get("title") in VIEW_TITLES:
            if any(data.get(name) != value for name, value in VIEW.items()):
                client.change_view(view["id"], campaign.ls_project_id, data | VIEW)
            return int(view["id"])
    return int(client.create_view(campaign.ls_project_id, VIEW)["id"])


def _webhook(campaign: Campaign, client: Client) -> int:
    assert campaign.ls_project_id is not None
    wanted = {
        "url": settings.THAWLOOP_CALLBACK_URL.rstrip("/") + reverse("labelstudio-webhook", args=[campaign.name]),
        "headers": {SECRET_HEADER: settings.THAWLOOP_WEBHOOK_SECRET},
        "actions": WEBHOOK_ACTIONS,
        "send_payload": True,
        "send_for_all_actions": False,
        "is_active": True,
    }
    path = urlsplit(str(wanted["url"])).path
    ours = [hook for hook in client.webhooks(campaign.ls_project_id) if urlsplit(hook["url"]).path == path]
    for surplus in ours[1:]:
        client.delete_webhook(surplus["id"])
    if not ours:
        return int(client.create_webhook(wanted | {"project": campaign.ls_project_id})["id"])
    hook = ours[0]
    differs = any(
        sorted(hook[name]) != sorted(value) if name == "actions" else hook[name] != value
        for name, value in wanted.items()
    )
    if differs:
        client.change_webhook(hook["id"], wanted)
    return int(hook["id"])


def _ml_backend(campaign: Campaign, client: Client) -> int | None:
    """Connect the ML backend. None while it is not up: predictions are pushed anyway, and it is tried again."""
    project = campaign.ls_project_id
    assert project is not None
    wanted = {"url": settings.ML_BACKEND_URL, "title": ML_BACKEND_TITLE}
    backends = client.ml_backends(project)
    ours = next((backend for backend in backends if backend["id"] == campaign.ls_ml_backend_id), None)
    ours = ours or next((backend for backend in backends if backend["url"] == wanted["url"]), None)
    try:
        if ours is None:
            description = {"description": "Stored predictions of the champion"}
            ours = client.create_ml_backend({"project": project} | wanted | description | _ml_backend_login())
        elif any(ours[name] != value for name, value in wanted.items()):
            client.change_ml_backend(ours["id"], {"project": project} | wanted | _ml_backend_login())
    except LabelStudioRefused as error:
        log.warning("the ML backend is not connected yet", campaign=campaign.name, url=wanted["url"], why=str(error))
    if ours is None:
        return None
    _drop_backend_webhook(project, client)
    return int(ours["id"])


def _shown(campaign: Campaign, client: Client) -> str:
    """Have Label Studio show the predictions that we gave last; their name, empty if they are to be given anew.

    Somebody may have chosen others in its settings, and a new ML backend puts its title in the place.
    """
    assert campaign.ls_project_id is not None
    if not campaign.ls_shown or client.project(campaign.ls_project_id)["model_version"] == campaign.ls_shown:
        return campaign.ls_shown
    try:
        client.change_project(campaign.ls_project_id, {"model_version": campaign.ls_shown})
    except LabelStudioRefused as error:  # somebody deleted them there
        log.warning("predictions are given anew", campaign=campaign.name, name=campaign.ls_shown, why=str(error))
        return ""
    return campaign.ls_shown


def _ml_backend_login() -> dict[str, str]:
    """The ML backend lets in who knows the webhook secret."""
    password = settings.THAWLOOP_WEBHOOK_SECRET
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": ML_BACKEND_USER, "basic_auth_pass": password}


def _drop_backend_webhook(project: int, client: Client) -> None:
    """Label Studio subscribes a new ML backend to everything, whole imports included; ours wants nothing of it."""
    unwanted = settings.ML_BACKEND_URL.rstrip("/") + "/webhook"
    for hook in client.webhooks(project):
        if hook["url"].rstrip("/") == unwanted:
            client.delete_webhook(hook["id"])
