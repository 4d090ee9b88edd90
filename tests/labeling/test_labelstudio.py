"""The exchange with a real Label Studio: pushed once, found again, never lost."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache

from labeling.labelstudio import push
from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import LabelStudioUnavailable, ProjectGone
from labeling.labelstudio.payloads import NO_MODEL
from labeling.labelstudio.preannotations import refresh_preannotations
from labeling.labelstudio.projects import SECRET_HEADER, WEBHOOK_ACTIONS, ensure_project
from labeling.labelstudio.push import push_tasks
from labeling.labelstudio.sync import new_project, reconcile, sync
from labeling.models import Annotation, AnnotationTask
from labeling.selectors import current_labels
from tests.labeling.build import RING, SQUARE, build_champion, build_prediction, build_tasks, polygon
from thawloop.core.errors import Refused

pytestmark = [pytest.mark.labelstudio, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def server(labelstudio, settings) -> None:
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_WEBHOOK_SECRET = "a-long-secret"
    settings.ML_BACKEND_URL = "http://127.0.0.1:9"  # nobody there
    cache.clear()


@pytest.fixture
def client(server) -> Iterator[Client]:
    with Client() as client:
        yield client


def annotate(client: Client, task: AnnotationTask, *regions: Any, **changes: Any) -> int:
    """Submit an annotation as an annotator's browser does."""
    task.refresh_from_db()
    body = {"result": list(regions), "lead_time": 3.5} | changes
    return client._object("POST", f"/api/tasks/{task.ls_task_id}/annotations/", content=body)["id"]


def order_of(client: Client, campaign: Any) -> list[int]:
    """Task ids in the order of the view, which is the order by score."""
    params = {"project": campaign.ls_project_id, "view": campaign.ls_view_id}
    return [found["id"] for found in client._object("GET", "/api/tasks/", params=params)["tasks"]]


def test_a_project_is_made_once_and_kept_as_the_campaign_wants_it(campaign, client):
    project = ensure_project(campaign)
    assert ensure_project(campaign) == project
    found = client.project(project)
    assert (found["maximum_annotations"], found["sampling"]) == (1, "Sequential sampling")
    assert found["show_collab_predictions"] is True
    (hook,) = client.webhooks(project)
    assert hook["url"].endswith("/hooks/labelstudio/peel")
    assert sorted(hook["actions"]) == sorted(WEBHOOK_ACTIONS)
    assert hook["headers"] == {SECRET_HEADER: "a-long-secret"}
    titles = ["In order of acquisition", "To be corrected"]
    assert sorted(view["data"]["title"] for view in client.views(project)) == titles


def test_a_project_that_was_made_but_not_noted_is_found_again(campaign, client):
    project = ensure_project(campaign)
    type(campaign).objects.filter(pk=campaign.pk).update(
        ls_project_id=None, ls_view_id=None, ls_webhook_id=None, ls_ml_backend_id=None
    )
    assert ensure_project(campaign) == project
    assert (len(client.webhooks(project)), len(client.views(project))) == (1, 2)


def test_a_moved_platform_corrects_its_webhook(campaign, client, settings):
    project = ensure_project(campaign)
    settings.THAWLOOP_CALLBACK_URL = "http://127.0.0.1:8123"
    ensure_project(campaign)
    (hook,) = client.webhooks(project)
    assert hook["url"] == "http://127.0.0.1:8123/hooks/labelstudio/peel"
    assert sorted(hook["actions"]) == sorted(WEBHOOK_ACTIONS)


def test_tasks_arrive_with_pre_annotations_in_acquisition_order(campaign, client):
    version = build_champion(campaign)
    first, second = build_tasks(campaign, 3), build_tasks(campaign, 2)
    for task in first + second:
        build_prediction(task.tile, version)
    AnnotationTask.objects.filter(pk=first[0].pk).update(rank=2)
    AnnotationTask.objects.filter(pk=first[2].pk).update(rank=0)
    assert push_tasks(campaign) == 5
    assert push_tasks(campaign) == 0
    in_order = [first[2], first[1], first[0], *second]
    for task in in_order:
        task.refresh_from_db()
        assert task.state == AnnotationTask.State.OPEN
        assert task.prediction.model_version == version
    assert order_of(client, campaign) == [task.ls_task_id for task in in_order]
    found = next(client.tasks(campaign.ls_project_id))
    assert found["data"]["picture_rgb"].startswith("http://127.0.0.1:8000/tiles/peel_2021_")
    (prediction,) = found["predictions"]
    assert prediction["model_version"] == "peel-v1"
    assert [region["type"] for region in prediction["result"]] == ["polygonlabels", "brushlabels"]
    assert client.project(campaign.ls_project_id)["model_version"] == "peel-v1"


def test_without_a_model_the_order_is_kept_all_the_same(campaign, client):
    pending = build_tasks(campaign, 4)
    for rank, task in enumerate(reversed(pending)):
        AnnotationTask.objects.filter(pk=task.pk).update(rank=rank)
    push_tasks(campaign)
    for task in pending:
        task.refresh_from_db()
    assert order_of(client, campaign) == [task.ls_task_id for task in reversed(pending)]
    assert client.project(campaign.ls_project_id)["model_version"] == NO_MODEL
    served = client._object("GET", f"/api/projects/{campaign.ls_project_id}/next")
    assert served["id"] == pending[-1].ls_task_id


def test_a_push_killed_after_the_import_neither_loses_nor_doubles(campaign, client, monkeypatch):
    pending = build_tasks(campaign, 6)

    def die(campaign: object, noted: object, how: str) -> None:
        if how == "imported":
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(push, "_note", die)
        with pytest.raises(KeyboardInterrupt):
            push_tasks(campaign)
    assert campaign.tasks.filter(state="pending").count() == 6
    imported = [found["id"] for found in client.tasks(campaign.ls_project_id)]
    assert len(imported) == 6
    assert push_tasks(campaign) == 6
    assert [found["id"] for found in client.tasks(campaign.ls_project_id)] == imported
    for task in pending:
        task.refresh_from_db()
    assert sorted(task.ls_task_id for task in pending) == imported


def test_copies_are_removed_but_never_one_that_was_annotated(campaign, client):
    (pending,) = build_tasks(campaign, 1)
    project = ensure_project(campaign)
    data = {"picture_rgb": "x", "picture_ndvi": "x", "platform_task_uuid": str(pending.pk)}
    copies = client.import_tasks(project, [{"data": data}] * 3)["task_ids"]
    client._object("POST", f"/api/tasks/{copies[1]}/annotations/", content={"result": []})
    push_tasks(campaign)
    pending.refresh_from_db()
    assert pending.ls_task_id == copies[1]
    assert [found["id"] for found in client.tasks(project)] == [copies[1]]


def test_two_pushes_at_once_import_each_task_once(campaign, client, transactional_db):
    from django.db import connection

    build_tasks(campaign, 5)
    opened: list[int] = []

    def push() -> None:
        try:
            opened.append(push_tasks(type(campaign).objects.get(pk=campaign.pk)))
        finally:
            connection.close()

    threads = [threading.Thread(target=push) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    campaign.refresh_from_db()
    assert sorted(opened) == [0, 5]
    assert len(list(client.tasks(campaign.ls_project_id))) == 5


def test_sync_finds_what_webhooks_missed(campaign, client):
    one, two, three = build_tasks(campaign, 3)
    push_tasks(campaign)
    kept = annotate(client, one, polygon(SQUARE))
    annotate(client, two, polygon(RING), was_cancelled=True)
    report = sync(campaign)
    assert (report.recorded, report.seen) == (2, 3)
    states = [AnnotationTask.objects.get(pk=task.pk).state for task in (one, two, three)]
    assert states == ["submitted", "skipped", "open"]
    (annotation,) = Annotation.objects.filter(kind="submitted")
    assert (annotation.ls_annotation_id, annotation.annotator_name) == (kept, "lead@thawloop.local")
    assert not sync(campaign)
    client._object("PATCH", f"/api/annotations/{kept}/", content={"result": [polygon(RING)]})
    assert sync(campaign).recorded == 1
    assert current_labels(campaign).get().number == 2


def test_an_annotation_deleted_in_label_studio_becomes_a_tombstone(campaign, client):
    (task,) = build_tasks(campaign, 1)
    push_tasks(campaign)
    identifier = annotate(client, task, polygon(SQUARE))
    sync(campaign)
    client._call("DELETE", f"/api/annotations/{identifier}/")
    assert sync(campaign).deleted == 1
    assert not current_labels(campaign).exists()
    assert list(Annotation.objects.order_by("id").values_list("kind", flat=True)) == ["submitted", "deleted"]
    assert not sync(campaign)


def test_a_task_deleted_in_label_studio_is_withdrawn_and_not_pushed_again(campaign, client):
    gone, stays = build_tasks(campaign, 2)
    push_tasks(campaign)
    annotate(client, gone, polygon(SQUARE))
    sync(campaign)
    client.delete_task(AnnotationTask.objects.get(pk=gone.pk).ls_task_id)
    assert sync(campaign).withdrawn == 0  # compared a moment ago
    assert sync(campaign, full=True).withdrawn == 1
    assert AnnotationTask.objects.get(pk=gone.pk).state == "withdrawn"
    assert AnnotationTask.objects.get(pk=stays.pk).state == "open"
    assert not current_labels(campaign).exists()
    assert push_tasks(campaign) == 0


def test_a_number_of_tasks_that_differs_leads_to_a_full_comparison(campaign, client):
    gone, _ = build_tasks(campaign, 2)
    push_tasks(campaign)
    sync(campaign)
    cache.clear()
    client.delete_task(AnnotationTask.objects.get(pk=gone.pk).ls_task_id)
    assert sync(campaign).withdrawn == 1


def test_sync_pushes_what_waits(campaign):
    build_tasks(campaign, 2)
    assert sync(campaign).pushed == 2


def test_open_tasks_get_the_new_champions_predictions(campaign, client):
    done, waiting = build_tasks(campaign, 2)
    old = build_champion(campaign, 1)
    for task in (done, waiting):
        build_prediction(task.tile, old)
    push_tasks(campaign)
    annotate(client, done, polygon(SQUARE))
    sync(campaign)
    new = build_champion(campaign, 2)
    for task in (done, waiting):
        build_prediction(task.tile, new, instances=[([RING], 0.8)])
    assert refresh_preannotations(campaign) == 1
    assert refresh_preannotations(campaign) == 0
    versions = {
        found["id"]: {prediction["model_version"] for prediction in found["predictions"]}
        for found in client.tasks(campaign.ls_project_id)
    }
    for task in (done, waiting):
        task.refresh_from_db()
    # What was replaced stays for a day: who started from it may still submit.
    assert versions == {done.ls_task_id: {"peel-v1"}, waiting.ls_task_id: {"peel-v1", "peel-v2"}}
    assert client.project(campaign.ls_project_id)["model_version"] == "peel-v2"
    assert (done.prediction.model_version, waiting.prediction.model_version) == (old, new)


def test_correction_is_measured_against_what_label_studio_showed(campaign, client):
    (task,) = build_tasks(campaign, 1)
    build_prediction(task.tile, build_champion(campaign))
    push_tasks(campaign)
    (found,) = client.tasks(campaign.ls_project_id)
    shown = found["predictions"][0]
    annotate(client, task, *shown["result"], parent_prediction=shown["id"])
    sync(campaign)
    annotation = Annotation.objects.get()
    assert annotation.correction_iou == 1.0
    assert annotation.problems == []
    assert current_labels(campaign).count() == 2


def test_an_annotation_by_somebody_with_an_account_here_is_theirs(campaign, client, django_user_model):
    user = django_user_model.objects.create(username="lead", email="lead@thawloop.local")
    (task,) = build_tasks(campaign, 1)
    push_tasks(campaign)
    annotate(client, task, polygon(SQUARE))
    sync(campaign)
    assert Annotation.objects.get().annotator == user


def test_a_deleted_project_is_said_and_can_be_made_anew(campaign, client):
    done, _ = build_tasks(campaign, 2)
    push_tasks(campaign)
    annotate(client, done, polygon(SQUARE))
    sync(campaign)
    with pytest.raises(Refused, match="is still in Label Studio"):
        new_project(campaign)
    client._call("DELETE", f"/api/projects/{campaign.ls_project_id}/")
    with pytest.raises(ProjectGone, match="--new-project"):
        sync(campaign)
    assert current_labels(campaign).count() == 1
    assert new_project(campaign) == 1
    assert sync(campaign).pushed == 1
    # The new project does not hold what was annotated in the old one: that is no deletion.
    assert sync(campaign, full=True).withdrawn == 0
    assert AnnotationTask.objects.get(pk=done.pk).state == "submitted"
    assert current_labels(campaign).count() == 1


def test_label_studio_down_is_a_sentence_and_holds_up_no_other_campaign(campaign, settings):
    ensure_project(campaign)
    settings.LABEL_STUDIO_URL = "http://127.0.0.1:9"
    with pytest.raises(LabelStudioUnavailable, match="cannot be reached"):
        sync(campaign)
    with pytest.raises(Refused, match="cannot be reached"):
        reconcile()


def test_a_wrong_token_is_a_sentence(campaign, settings):
    settings.LABEL_STUDIO_TOKEN = "0" * 40
    with pytest.raises(LabelStudioUnavailable, match="LABEL_STUDIO_TOKEN"):
        ensure_project(campaign)
    settings.LABEL_STUDIO_TOKEN = ""
    with pytest.raises(LabelStudioUnavailable, match="LABEL_STUDIO_TOKEN"):
        ensure_project(campaign)


def test_a_personal_access_token_works_as_well(client):
    token = client._object("POST", "/api/token/", content={})["token"]
    try:
        with Client(token=token) as other:
            assert other.whoami()["email"] == "lead@thawloop.local"
            other._access = "spent"  # as after five minutes
            assert other.whoami()["email"] == "lead@thawloop.local"
    finally:  # an account can have only one
        client._call("POST", "/api/token/blacklist/", content={"refresh": token})


def test_something_that_is_not_label_studio_is_recognised(settings, local_stack):
    with pytest.raises(LabelStudioUnavailable), Client(url=local_stack.redis_url.replace("redis", "http", 1)) as other:
        other.version()


def test_health_says_which_label_studio_and_who_we_are(server):
    from labeling.labelstudio.health import check_label_studio

    assert check_label_studio().startswith("Label Studio 1.")
