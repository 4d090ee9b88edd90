"""What people and programs see of an installation: compared before an upgrade (written down) and after it.

It is asked for through the API, and in Python only where the API says nothing.
"""

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rest_framework.test import APIClient

COLLECTIONS = (
    "modalities", "regions", "scenes", "grids", "tiles", "classes", "campaigns", "tasks", "annotations", "labels",
    "predictions", "batches", "imports", "releases", "policies", "retrainings", "runs", "models", "evaluations",
    "promotions", "jobs", "audit",
)  # fmt: skip
LONGEST = 100  # characters of JSON: what is longer is compared by its checksum
# What an upgrade may rename (dotted paths, labels of models), and what the test itself makes anew (weights).
NOT_COMPARED = {"jobs": ("function",), "audit": ("object_type",), "models": ("checksum", "card")}


def see(*folders: str, called: str) -> dict[str, Any]:
    """Everything that can be seen, as JSON values; in their texts, the installation's folders have another name."""
    client = client_of("admin")
    lists = {name: _listed(client, name) for name in COLLECTIONS}
    policies = [f"policies/{row['id']}" for row in lists["policies"]]
    pages = {
        f"{policy}/{page}": get(client, f"{policy}/{page}")
        for policy in policies
        for page in ("explain", "outlook", "learning-curve")
    }
    found = {"lists": lists, "pages": pages, "truth": _truth(), "people": _people(), "admin_log": _admin_log()}
    text = json.dumps(found, default=str)
    for folder in folders:
        text = text.replace(folder, called)
    seen: dict[str, Any] = _shortened(json.loads(text))
    return seen


def client_of(name: str) -> "APIClient":
    """A program of somebody with that account."""
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    client = APIClient(SERVER_NAME="127.0.0.1")
    client.force_authenticate(User.objects.get(username=name))
    return client


def get(client: "APIClient", address: str, **parameters: Any) -> Any:
    """What the API says there."""
    return _content(client.get(f"/api/{address}/", parameters))


def _content(answer: Any) -> Any:
    assert answer.status_code == 200, answer.content
    return json.loads(answer.content)


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """What was there before and is not what it was, in words; what is new is no difference."""
    if isinstance(before, dict) and isinstance(after, dict):
        lost = [f"{where}/{name}: gone, was {before[name]!r}" for name in before.keys() - after.keys()]
        common = before.keys() & after.keys()
        return sorted(lost) + [line for name in sorted(common) for line in _apart(before, after, name, where)]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [line for number in range(len(before)) for line in _apart(before, after, number, where)]
    if isinstance(before, float) and isinstance(after, float) and math.isclose(before, after, rel_tol=1e-9):
        return []  # a mean over rows in another order
    return [] if before == after else [f"{where}: {after!r}, was {before!r}"]


def _apart(before: Any, after: Any, name: Any, where: str) -> list[str]:
    return differences(before[name], after[name], f"{where}/{name}")


def _listed(client: "APIClient", name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = get(client, name, page_size=1000)
    while True:
        found = page["results"]
        rows += found["features"] if isinstance(found, dict) else found
        if page["next"] is None:
            break
        page = _content(client.get(page["next"]))
    rows = [row | row.pop("properties") if row.get("type") == "Feature" else row for row in rows]
    for row in rows:
        row.get("instances", []).sort(key=lambda instance: instance["region_id"])  # they have no order
    left_out = NOT_COMPARED.get(name, ())
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def _truth() -> dict[str, Any]:
    """Of each campaign: statements about tiles, labels of record with their outlines, who is and was champion."""
    from labeling.selectors import current_labels, labelled_tiles
    from thawloop.campaigns.models import Campaign
    from thawloop.registry.selectors import champion, previous_champion

    return {
        campaign.name: {
            "labelled": {tile.key: tile.split for tile in labelled_tiles(campaign).order_by("key")},
            "labels": {
                str(revision.label_id): [revision.number, revision.landform_class.name, revision.geometry.hex.decode()]
                for revision in current_labels(campaign).defer(None)
            },
            "champion": str(champion(campaign)),
            "previous": str(previous_champion(campaign)),
        }
        for campaign in Campaign.objects.order_by("name")
    }


def _people() -> dict[str, Any]:
    """Of each account: its groups, and its permissions for models that exist, without the app's name."""
    from django.contrib.auth.models import Permission, User
    from django.db.models import Q

    people = {}
    for user in User.objects.order_by("username"):
        given = Permission.objects.filter(Q(group__user=user) | Q(user=user)).select_related("content_type").distinct()
        people[user.username] = {
            "groups": sorted(user.groups.values_list("name", flat=True)),
            "permissions": {row.codename: True for row in given if row.content_type.model_class() is not None},
        }
    return people


def _admin_log() -> list[list[str]]:
    """What the admin's history says, with the name of the model and the object that it leads to."""
    from django.contrib.admin.models import LogEntry

    return [
        [entry.user.username, entry.content_type.model, str(entry.get_edited_object()), entry.get_change_message()]
        for entry in LogEntry.objects.select_related("user", "content_type").order_by("pk")
    ]


def _shortened(value: Any) -> Any:
    """With a checksum in the place of every long text and of every long list of anything but objects."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_shortened(item) for item in value]
    text = json.dumps(value)
    return value if len(text) <= LONGEST else f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
