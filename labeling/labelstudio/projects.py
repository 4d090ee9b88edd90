"""A campaign's project in Label Studio: created once, found again after a crash, kept up to date."""

from typing import Any
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.urls import reverse
from django.utils.crypto import salted_hmac

from labeling.labelstudio.client import Client
from labeling.labelstudio.config import NOTE, labeling_config
from labeling.labelstudio.errors import ExchangeStopped, LabelStudioRefused
from labeling.labelstudio.identity import mark_of, own_project
from labeling.labelstudio.secrets import ml_backend_secret, webhook_secret
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused
from thawloop.core.locks import exclusive
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
CORRECTIONS_TITLE = "To be corrected"
ML_BACKEND_USER = "label-studio"


def ensure_project(campaign: Campaign, client: Client | None = None) -> int:
    """Make the campaign's project with its view, webhook and ML backend, or bring what is there up to date.

    Idempotent, and safe to kill anywhere: a project that was made but not noted is found by its mark.

    Returns:
        The project's id in Label Studio.

    Raises:
        Refused: The campaign cannot be shown, or the webhook secret is not set.
        ExchangeStopped: The project is gone or somebody else's, or the exchange waits for a lead.
        LabelStudioUnavailable: Label Studio does not answer, or refuses our token.
    """
    if not settings.THAWLOOP_WEBHOOK_SECRET:
        raise Refused(
            "THAWLOOP_WEBHOOK_SECRET is not set: choose a long random value, only requests that carry it are accepted."
        )
    if client is None:
        with Client() as own:
            return ensure_project(campaign, own)
    config = labeling_config(campaign)
    with exclusive(f"project:{campaign.pk}"):
        campaign.refresh_from_db()
        found = _project(campaign, client, config)
        _corrections_view(campaign, client)
        noted: dict[str, Any] = {
            "ls_view_id": _view(campaign, client),
            "ls_webhook_id": _webhook(campaign, client),
        }
        noted["ls_ml_backend_id"], is_current = _ml_backend(campaign, client)
        noted["ls_connections"] = connections() if is_current else ""
        noted["ls_shown"] = _shown(campaign, client)
        if any(getattr(campaign, name) != value for name, value in noted.items()):
            for name, value in noted.items():
                setattr(campaign, name, value)
            campaign.save(update_fields=list(noted))
    return int(found["id"])


def connections() -> str:
    """A digest of what Label Studio must know to reach us: if it differs from a campaign's, its project is outdated."""
    known = [settings.THAWLOOP_CALLBACK_URL, webhook_secret(), settings.ML_BACKEND_URL, ml_backend_secret()]
    return salted_hmac("labeling.connections", "\n".join(known)).hexdigest()[:32]


def _project(campaign: Campaign, client: Client, config: str) -> dict[str, Any]:
    if campaign.ls_project_id is None:
        mark = mark_of(campaign)
        project = next((found for found in client.projects() if mark in (found.get("description") or "")), None)
        project = client.project(project["id"]) if project else client.create_project(_new_project(campaign, config))
        campaign.ls_project_id, campaign.ls_shown = project["id"], ""
        campaign.save(update_fields=["ls_project_id", "ls_shown"])
        audit("labeling.ensure_project", campaign, after={"ls_project_id": project["id"]})
    else:
        project = own_project(campaign, client)
        if campaign.ls_stopped:  # a sync asked a lead: nothing is added before there is an answer
            raise ExchangeStopped(campaign.ls_stopped)
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
        "description": f"Campaign {campaign.name} ({campaign.ls_mark}: ThawLoop knows its project by this)",
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


def _corrections_view(campaign: Campaign, client: Client) -> None:
    """A tab in which annotators find the submissions that they have to correct."""
    assert campaign.ls_project_id is not None
    if any(view.get("data", {}).get("title") == CORRECTIONS_TITLE for view in client.views(campaign.ls_project_id)):
        return
    noted = {"filter": f"filter:tasks:data.{NOTE}", "operator": "empty", "type": "String", "value": False}
    data = {"title": CORRECTIONS_TITLE, "type": "list", "target": "tasks", "ordering": ["tasks:id"]}
    client.create_view(campaign.ls_project_id, data | {"filters": {"conjunction": "and", "items": [noted]}})


def _webhook(campaign: Campaign, client: Client) -> int:
    assert campaign.ls_project_id is not None
    wanted = {
        "url": settings.THAWLOOP_CALLBACK_URL.rstrip("/") + reverse("labelstudio-webhook", args=[campaign.name]),
        "headers": {SECRET_HEADER: webhook_secret()},
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


def _ml_backend(campaign: Campaign, client: Client) -> tuple[int | None, bool]:
    """Connect the ML backend. None while it is not up: predictions are pushed anyway, and it is tried again.

    Returns:
        Its number, and whether Label Studio knows its address and password.
    """
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
        elif campaign.ls_connections != connections() or any(ours[name] != value for name, value in wanted.items()):
            client.change_ml_backend(ours["id"], {"project": project} | wanted | _ml_backend_login())
    except LabelStudioRefused as error:
        log.warning("the ML backend is not connected yet", campaign=campaign.name, url=wanted["url"], why=str(error))
        return (None, True) if ours is None else (int(ours["id"]), False)
    _drop_backend_webhook(project, client)
    return int(ours["id"]), True


def _shown(campaign: Campaign, client: Client) -> str:
    """Have Label Studio show the predictions imported last; returns their name, empty if they must be imported again.

    Somebody may have chosen others in its settings, and a new ML backend puts its title in the place.
    """
    assert campaign.ls_project_id is not None
    if not campaign.ls_shown or client.project(campaign.ls_project_id)["model_version"] == campaign.ls_shown:
        return campaign.ls_shown
    try:
        client.change_project(campaign.ls_project_id, {"model_version": campaign.ls_shown})
    except LabelStudioRefused as error:  # somebody deleted them there
        log.warning("predictions are imported again", campaign=campaign.name, name=campaign.ls_shown, why=str(error))
        return ""
    return campaign.ls_shown


def _ml_backend_login() -> dict[str, str]:
    """The login by which Label Studio authenticates itself to the ML backend."""
    password = ml_backend_secret()
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": ML_BACKEND_USER, "basic_auth_pass": password}


def _drop_backend_webhook(project: int, client: Client) -> None:
    """Label Studio subscribes a new ML backend to all webhooks, whole imports included; ours needs none."""
    unwanted = settings.ML_BACKEND_URL.rstrip("/") + "/webhook"
    for hook in client.webhooks(project):
        if hook["url"].rstrip("/") == unwanted:
            client.delete_webhook(hook["id"])
