"""What `next` serves to several people, in a real Label Studio, whatever models have said about the tasks that wait."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.cache import cache
from django.utils import timezone

from devstack.labelstudio import LabelStudioServer
from labeling.labelstudio import preannotations
from labeling.labelstudio.client import Client
from labeling.labelstudio.preannotations import has_outdated_preannotations, refresh_preannotations, tidy_preannotations
from labeling.labelstudio.projects import ensure_project
from labeling.labelstudio.push import push_tasks
from labeling.labelstudio.sync import sync
from labeling.models import AnnotationTask, Preannotation
from tests.labeling.build import RING, SQUARE, build_champion, build_prediction, build_tasks
from thawloop.core.models import Job
from thawloop.registry.models import ModelAlias

pytestmark = [pytest.mark.labelstudio, pytest.mark.django_db]

TRIANGLE = [[5.0, 5.0], [25.0, 5.0], [25.0, 25.0]]


class Person:
    """Somebody with an account of their own, as their browser speaks to Label Studio."""

    def __init__(self, server: LabelStudioServer, name: str, invitation: str) -> None:
        self.http = httpx.Client(base_url=server.url, timeout=60)
        fields = {"email": f"{name}@example.org", "password": "a long password"}
        for path in ("/user/login/", invitation):
            self.http.get(path)
            form = fields | {"csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
            if self.http.post(path, data=form, headers={"Referer": server.url}).status_code == 302:
                break
        token = self.http.get("/api/current-user/token").raise_for_status().json()["token"]
        self.http.cookies.clear()
        self.http.headers["Authorization"] = f"Token {token}"

    def next(self, campaign: Any) -> dict[str, Any] | None:
        """The task that Label Studio serves; the same again until it is submitted."""
        answer = self.http.get(f"/api/projects/{campaign.ls_project_id}/next")
        return None if answer.status_code == 404 else answer.raise_for_status().json()

    def submit(self, task: dict[str, Any], **fields: Any) -> None:
        (shown,) = task["predictions"]
        body = {"result": shown["result"], "parent_prediction": shown["id"], "lead_time": 1} | fields
        self.http.post(f"/api/tasks/{task['id']}/annotations/", json=body).raise_for_status()


@pytest.fixture(autouse=True)
def server(labelstudio, settings) -> None:
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_WEBHOOK_SECRET = "a-long-secret"
    settings.ML_BACKEND_URL = "http://127.0.0.1:9"  # nobody there: what was imported must do
    cache.clear()


@pytest.fixture
def client(server) -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def person(labelstudio, client) -> Iterator[Callable[[str], Person]]:
    invitation = client._object("GET", "/api/invite")["invite_url"]
    with ExitStack() as open_connections:

        def sign_in(name: str) -> Person:
            somebody = Person(labelstudio, name, invitation)
            open_connections.callback(somebody.http.close)
            return somebody

        yield sign_in


def shuffled(campaign: Any, count: int) -> list[AnnotationTask]:
    """Tasks of a new batch in order of acquisition, which is not the order of their creation."""
    tasks = build_tasks(campaign, count)
    random.Random(campaign.batches.count()).shuffle(tasks)
    for rank, task in enumerate(tasks):
        task.rank = rank
        task.save()
    return tasks


def crown(campaign: Any, version: Any) -> None:
    ModelAlias.objects.filter(campaign=campaign, alias="champion").update(model_version=version)


def seen(task: dict[str, Any]) -> list[Any]:
    """The points that are shown, in tile pixels; of one prediction: two would be drawn over each other."""
    (prediction,) = task["predictions"]
    return [
        [[round(x * 1.28, 6), round(y * 1.28, 6)] for x, y in region["value"]["points"]]
        for region in prediction["result"]
    ]


def test_next_follows_acquisition_through_a_promotion_and_a_rollback(campaign, client, person):
    anna, boris, carla = person("anna"), person("boris"), person("carla")
    tasks = shuffled(campaign, 8)
    old = build_champion(campaign, 1)
    for task in tasks[:6]:  # about the last two it has not spoken
        build_prediction(task.tile, old, instances=[([SQUARE], 0.9)])
    push_tasks(campaign)
    order = [AnnotationTask.objects.get(pk=task.pk).ls_task_id for task in tasks]

    served = [somebody.next(campaign) for somebody in (anna, boris, carla)]
    assert [task["id"] for task in served] == order[:3]
    assert [seen(task) for task in served] == [[SQUARE]] * 3
    assert anna.next(campaign)["id"] == order[0]  # hers until she submits

    # Promoted, and not a prediction yet: everything as before.
    new = build_champion(campaign, 2)
    assert not refresh_preannotations(campaign)
    anna.submit(served[0])
    served[0] = anna.next(campaign)
    assert (served[0]["id"], seen(served[0])) == (order[3], [SQUARE])

    # It has spoken about some of the tiles, and of one where nobody had.
    for task in (tasks[1], tasks[4], tasks[6]):
        build_prediction(task.tile, new, instances=[([RING], 0.9)])
    assert refresh_preannotations(campaign) == 3
    boris.submit(served[1])  # started from what was replaced
    sync(campaign)
    (annotation,) = tasks[1].annotations.all()
    assert (annotation.prediction.model_version, annotation.correction_iou) == (old, 1.0)
    served[1] = boris.next(campaign)
    assert (served[1]["id"], seen(served[1])) == (order[4], [RING])
    assert seen(carla.next(campaign)) == [SQUARE]
    anna.submit(served[0])
    served[0] = anna.next(campaign)
    assert (served[0]["id"], seen(served[0])) == (order[5], [SQUARE])

    # The next batch comes after what waits, and the rest of the predictions arrives.
    later = shuffled(campaign, 3)
    for task in (*tasks, *later):
        if not task.tile.predictions.filter(model_version=new).exists():
            build_prediction(task.tile, new, instances=[([RING], 0.9)])
    push_tasks(campaign)
    order += [AnnotationTask.objects.get(pk=task.pk).ls_task_id for task in later]
    sync(campaign)
    carla.submit(served[2])
    served[2] = carla.next(campaign)
    assert (served[2]["id"], seen(served[2])) == (order[6], [RING])

    # Back to the old one, which never saw the tiles of the later batch, nor the last two of the first.
    crown(campaign, old)
    refresh_preannotations(campaign)
    boris.submit(served[1])
    served[1] = boris.next(campaign)
    assert (served[1]["id"], seen(served[1])) == (order[7], [RING])
    assert seen(anna.next(campaign)) == [SQUARE]

    # Skipped by one, it is offered to the others, not empty, in its place.
    carla.submit(served[2], was_cancelled=True)
    anna.submit(served[0])
    served[0] = anna.next(campaign)
    assert (served[0]["id"], seen(served[0])) == (order[6], [RING])
    rest = [carla.next(campaign)["id"]]
    boris.submit(served[1])
    rest.append(boris.next(campaign)["id"])
    assert rest == order[8:10]


def test_a_project_of_an_earlier_version_is_put_in_order(campaign, client, person):
    """As it was left: sampling by uncertainty, `no-model` shown, predictions of several names, no list of them."""
    tasks = shuffled(campaign, 6)
    project = ensure_project(campaign)
    client.change_project(project, {"sampling": "Uncertainty sampling"})
    client.change_view(
        campaign.ls_view_id, project, {"title": "By uncertainty", "ordering": ["tasks:predictions_score"]}
    )
    champion = build_champion(campaign)
    given = [build_prediction(task.tile, champion, instances=[([SQUARE], 0.9)]) for task in tasks[3:]]
    empty = {"model_version": "no-model", "score": 0.1, "result": []}
    shown = {"model_version": "peel-v1", "score": 0.5, "result": []}
    data = [{"picture_rgb": "x", "picture_ndvi": "x", "platform_task_uuid": str(task.pk)} for task in tasks]
    payload = [{"data": row, "predictions": [shown if n > 2 else empty]} for n, row in enumerate(data)]
    order = client.import_tasks(project, payload)["task_ids"]
    client.change_project(project, {"model_version": "no-model"})
    for task, identifier, prediction in zip(tasks, order, [None] * 3 + given, strict=True):
        campaign.tasks.filter(pk=task.pk).update(state="open", ls_task_id=identifier, prediction=prediction)
        name = "peel-v1" if prediction else "no-model"
        Preannotation.objects.create(task=task, name=name, prediction=prediction)  # as the migration makes them
    for task in tasks[:3]:
        build_prediction(task.tile, champion, instances=[([SQUARE], 0.9)])
    sync(campaign)
    people = [person(name) for name in ("anna", "boris", "carla")]
    served = [somebody.next(campaign) for somebody in people]
    assert [task["id"] for task in served] == order[:3]
    assert [seen(task) for task in served] == [[SQUARE]] * 3
    orderings = {view["id"]: view["data"]["ordering"] for view in client.views(project)}
    assert orderings[campaign.ls_view_id] == ["tasks:id"]


def test_a_refresh_killed_before_the_end_shows_what_was_shown(campaign, client, person, monkeypatch):
    (task,) = shuffled(campaign, 1)
    build_prediction(task.tile, build_champion(campaign, 1), instances=[([SQUARE], 0.9)])
    push_tasks(campaign)
    build_prediction(task.tile, build_champion(campaign, 2), instances=[([RING], 0.9)])

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(preannotations, "show", die)
        with pytest.raises(KeyboardInterrupt):
            refresh_preannotations(campaign)
    anna = person("anna")
    assert seen(anna.next(campaign)) == [SQUARE]
    assert has_outdated_preannotations(campaign)
    assert refresh_preannotations(campaign) == 1
    assert seen(anna.next(campaign)) == [RING]
    assert not has_outdated_preannotations(campaign)


def test_what_somebody_chose_in_label_studio_is_put_right(campaign, client, person):
    (task,) = shuffled(campaign, 1)
    build_prediction(task.tile, build_champion(campaign), instances=[([SQUARE], 0.9)])
    push_tasks(campaign)
    project = campaign.ls_project_id
    client.change_project(project, {"model_version": ""})
    anna = person("anna")
    assert anna.next(campaign)["predictions"] == []
    ensure_project(campaign)
    assert seen(anna.next(campaign)) == [SQUARE]
    (shown,) = client.predictions(anna.next(campaign)["id"])
    client.delete_prediction(shown["id"])
    client.change_project(project, {"model_version": ""})
    ensure_project(campaign)
    assert has_outdated_preannotations(campaign)
    sync(campaign)
    assert seen(anna.next(campaign)) == [SQUARE]


def test_a_task_deleted_in_label_studio_holds_up_no_other(campaign, client):
    gone, stays = shuffled(campaign, 2)
    push_tasks(campaign)
    gone.refresh_from_db()
    client.delete_task(gone.ls_task_id)
    champion = build_champion(campaign)
    for task in (gone, stays):
        build_prediction(task.tile, champion, instances=[([SQUARE], 0.9)])
    assert refresh_preannotations(campaign)
    stays.refresh_from_db()
    names = {row["model_version"] for row in client.predictions(stays.ls_task_id)}
    assert names == {"no-model", "peel-v1"}
    assert client.project(campaign.ls_project_id)["model_version"] == "peel-v1"


def test_what_was_replaced_is_removed_when_nobody_can_be_at_it_any_more(campaign, client):
    done, waits = shuffled(campaign, 2)
    push_tasks(campaign)
    done.refresh_from_db()
    client._object("POST", f"/api/tasks/{done.ls_task_id}/annotations/", content={"result": []})
    sync(campaign)
    for number in (1, 2):
        version = build_champion(campaign, number)
        build_prediction(waits.tile, version, instances=[([TRIANGLE], 0.9)])
        refresh_preannotations(campaign)
    waits.refresh_from_db()

    def names(task: AnnotationTask) -> list[str]:
        return sorted(row["model_version"] for row in client.predictions(task.ls_task_id))

    assert tidy_preannotations(campaign) == 0
    assert names(waits) == ["no-model", "peel-v1", "peel-v2"]
    Preannotation.objects.update(created=timezone.now() - timedelta(days=2))
    assert tidy_preannotations(campaign) == 1
    assert (names(waits), names(done)) == (["peel-v2"], ["no-model"])
    assert tidy_preannotations(campaign) == 0


def test_many_tasks_are_given_anew_for_many_predictions_not_for_each(campaign, monkeypatch):
    monkeypatch.setattr(preannotations, "FEW", 3)
    tasks = shuffled(campaign, 8)
    push_tasks(campaign)
    champion = build_champion(campaign)
    predicting = Job.objects.create(function="ml_backend.jobs.predict", key="x", args={"campaign": campaign.pk})
    for number, task in enumerate(tasks, start=1):
        build_prediction(task.tile, champion)
        assert has_outdated_preannotations(campaign) == (number >= 4)  # half of them
    AnnotationTask.objects.filter(pk__in=[task.pk for task in tasks[1:]]).delete()
    AnnotationTask.objects.filter(pk=tasks[0].pk).update(prediction=None)
    Job.objects.filter(pk=predicting.pk).update(state="succeeded")
    assert has_outdated_preannotations(campaign)
