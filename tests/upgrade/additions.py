"""What an installation in use has and the demo leaves out: edits, refusals, rotations, people, jobs of every state."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PEOPLE = {  # account: groups
    "anna": ["annotator"],
    "lea": ["lead"],
    "rita": ["reviewer"],
    "edgar": ["editors"],
}
EDITORS_MAY = ["change_campaign"]  # of a group that is no role of ours
ALSO_MAY = {"anna": ["start_retraining"]}  # of a person alone
CORNERS = [[20, 20], [60, 20], [60, 60], [20, 60]]  # percent of a picture's side
CROSSED = [[10, 10], [90, 90], [90, 10], [10, 90]]
LS_USER = {1: "anna@thawloop.local"}


def submission(number: int, points: list[list[int]], *, after: datetime, **fields: Any) -> dict[str, Any]:
    """An annotation with one outline, in percent of the picture, as Label Studio gives it."""
    shape = {"points": points, "closed": True, "polygonlabels": ["RTS"]}
    region = {"id": "drawn", "from_name": "polygons", "to_name": "picture_rgb", "type": "polygonlabels", "value": shape}
    result = [region | {"original_width": 512, "original_height": 512}]
    updated = (after + timedelta(minutes=number)).isoformat()
    return {"id": number, "updated_at": updated, "completed_by": 1, "lead_time": 9.5, "result": result, **fields}


def add_people() -> None:
    """Accounts in roles and in a group of their own; nobody can log in."""
    from django.contrib.auth.models import Group, Permission, User

    User.objects.filter(username="admin").update(email="", last_login=None)
    editors = Group.objects.create(name="editors")
    editors.permissions.set(Permission.objects.filter(codename__in=EDITORS_MAY))
    for name, groups in PEOPLE.items():
        user = User.objects.create_user(name, email=f"{name}@thawloop.local")
        user.groups.set(Group.objects.filter(name__in=groups))
        user.user_permissions.set(Permission.objects.filter(codename__in=ALSO_MAY.get(name, [])))
    for user in User.objects.all():
        user.set_unusable_password()
        user.save()


def add_annotations(campaign: Any) -> None:
    """An edit, a skip, a deletion, one that is not understood, one that was mended; a reviewer's word."""
    from labeling.labelstudio.submissions import record_payload
    from labeling.models import Label
    from labeling.services import record_deletion, review_label
    from thawloop.core.context import acting

    last = campaign.tasks.filter(annotations__isnull=False).latest("annotations__ls_updated_at")
    after = last.annotations.latest("ls_updated_at").ls_updated_at.replace(microsecond=0)
    tasks = list(campaign.tasks.filter(state="submitted").order_by("ls_task_id")[:6])
    first = [task.annotations.latest("id").ls_annotation_id for task in tasks]
    record_payload(tasks[0], submission(first[0], CORNERS, after=after), people=LS_USER)
    record_payload(tasks[1], submission(first[1], CORNERS, after=after, was_cancelled=True), people=LS_USER)
    record_deletion(tasks[2], first[2])
    record_payload(tasks[3], submission(first[3], CROSSED, after=after), people=LS_USER)
    outside = [[80, 80], [120, 80], [120, 95], [80, 95]]
    record_payload(tasks[4], submission(first[4], outside, after=after), people=LS_USER)
    with acting(name="rita"):
        label = Label.objects.filter(campaign=campaign, tile=tasks[5].tile, current__state="present").first()
        label = label or Label.objects.filter(campaign=campaign, tile__isnull=False, current__state="present").first()
        review_label(label, state="retired", reason="A shadow.")


def add_imports(campaign: Any, folder: Path) -> None:
    """One that says again what was said before, and one that was withdrawn."""
    from labeling.services.imports import withdraw_import
    from thawloop.releases.services import import_labels

    truth = json.loads((folder / "truth.geojson").read_text())
    for name, share in (("again", slice(0, 12)), ("withdrawn", slice(12, 16))):
        path = folder / f"{name}.geojson"
        path.write_text(json.dumps(truth | {"features": truth["features"][share]}))
        taken = import_labels(campaign, path)
        path.unlink()
        if name == "withdrawn":
            withdraw_import(taken, reason="Drawn on another picture.")


def add_batch(campaign: Any) -> None:
    """A batch of which two tasks wait for annotators and two for Label Studio, which is not here."""
    from labeling.models import Preannotation
    from labeling.services import acquire
    from thawloop.core.jobs import run_inline

    job = run_inline(acquire(campaign, count=4, strategy="uncertainty").pk)
    assert job.state == "succeeded", job.error
    number = campaign.tasks.exclude(ls_task_id=None).count()
    for task in campaign.tasks.filter(state="pending").order_by("rank")[:2]:
        number += 1
        task.state, task.ls_task_id = "open", number
        task.save()
        Preannotation.objects.create(task=task, name=campaign.ls_shown, prediction=task.prediction)


def add_models(campaign: Any) -> None:
    """A rollback and a promotion by hand; a challenger that waits; secrets that were replaced."""
    from labeling.labelstudio.secrets import rotate_secrets
    from thawloop.core.jobs import cancel_job
    from thawloop.registry.models import ModelAlias
    from thawloop.registry.selectors import champion
    from thawloop.registry.services import promote, rollback

    best = champion(campaign)
    rollback(campaign, reason="It finds lakes.")
    promote(best, reason="It does not.")
    oldest = campaign.model_versions.order_by("number").first()
    ModelAlias.objects.create(campaign=campaign, alias="challenger", model_version=oldest)
    rotate_secrets("An annotator left.")
    for job in _jobs(state="queued", key__startswith="predict:"):
        cancel_job(job, reason="The demo predicted already.")


def add_jobs(campaign: Any) -> None:
    """One that failed, four that wait, and one whose worker died."""
    from labeling.labelstudio.webhooks import enqueue_processing
    from labeling.models import WebhookEvent
    from thawloop.campaigns.selectors import campaign_tiles
    from thawloop.core.jobs import enqueue, run_inline
    from thawloop.registry.selectors import champion
    from thawloop.registry.services import request_predictions

    for job in _jobs(state="queued"):
        assert run_inline(job.pk).state in ("succeeded", "failed"), job
    arguments = {"campaign": campaign.pk}
    numbers = {"project": campaign.ls_project_id, "tasks": [1], "annotations": [1]}
    WebhookEvent.objects.create(campaign=campaign, action="ANNOTATION_UPDATED", payload=numbers)
    enqueue_processing(campaign)
    enqueue("labeling.labelstudio.jobs.synchronise", key=f"sync:{campaign.pk}", args={**arguments, "full": True})
    enqueue("labeling.labelstudio.jobs.settle", key=f"settle:{campaign.pk}", args=arguments)
    enqueue("thawloop.training.jobs.consider", key=f"consider:{campaign.pk}", args=arguments)
    unseen = campaign_tiles(campaign).exclude(predictions__model_version=champion(campaign)).order_by("pk")
    dead = request_predictions(campaign, tiles=[tile.pk for tile in unseen[:2]])
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    _jobs(pk=dead.pk).update(state="running", started=long_ago, lease_until=long_ago, lease_token=dead.pk)


def add_admin_log(campaign: Any) -> None:
    """What people changed in the admin, of several rooms."""
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.auth.models import Group, User

    admin = User.objects.get(username="admin")
    champion = campaign.aliases.get(alias="champion")
    editors = Group.objects.get(name="editors")
    for row in (campaign, campaign.retrain_policy, campaign.classes.first(), campaign.grid, champion, editors):
        LogEntry.objects.log_actions(admin.pk, [row], CHANGE, change_message="Changed by hand.", single_object=True)


def _jobs(**which: Any) -> Any:
    from thawloop.core.models import Job

    return Job.objects.filter(**which)
