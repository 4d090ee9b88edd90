"""Each request that our client makes, against a real Label Studio; and what becomes of its refusals."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from devstack.labelstudio import LabelStudioServer
from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import LabelStudioMissing, LabelStudioRefused

CONFIG = (
    '<View><Image name="rgb" value="$rgb"/>'
    '<PolygonLabels name="p" toName="rgb"><Label value="rts"/></PolygonLabels></View>'
)
REGION = {
    "id": "r1",
    "from_name": "p",
    "to_name": "rgb",
    "type": "polygonlabels",
    "original_width": 100,
    "original_height": 100,
    "image_rotation": 0,
    "value": {"points": [[10.123456789, 10], [20, 10], [20, 20]], "closed": True, "polygonlabels": ["rts"]},
}
PUBLIC = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
GONE = 2**31 - 1


class Recording(Client):
    """Knows which of its public methods were called, and came back."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.met: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in PUBLIC:
            return found

        def noted(*args: Any, **fields: Any) -> Any:
            answer = found(*args, **fields)
            self.met.add(name)
            return answer

        return noted


@pytest.fixture(scope="module")
def client(labelstudio: LabelStudioServer) -> Iterator[Recording]:
    with Recording(labelstudio.url, labelstudio.token) as client:
        yield client


@pytest.fixture(scope="module")
def project(client: Recording) -> Iterator[int]:
    made = client.create_project({"title": "client", "description": "of test_client", "label_config": CONFIG})
    yield made["id"]
    client._call("DELETE", f"/api/projects/{made['id']}/")


@pytest.fixture
def tasks(client: Recording, project: int) -> list[int]:
    """Three tasks with predictions."""
    prediction = {"model_version": "v1", "score": 0.5, "result": [REGION]}
    answer = client.import_tasks(
        project, [{"data": {"rgb": f"{n}.png"}, "predictions": [prediction]} for n in range(3)]
    )
    return answer["task_ids"]


@pytest.fixture
def backend() -> Iterator[str]:
    """The address of something that speaks as an ML backend does."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"status": "UP", "model_version": "v1"}')

        do_GET = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def meet_version(site: SimpleNamespace) -> None:
    assert site.client.version() == "1.23.2"
    assert abs(site.client.server_time - datetime.now(UTC)) < timedelta(minutes=1)


def meet_whoami(site: SimpleNamespace) -> None:
    assert site.client.whoami()["email"] == site.server.username


def meet_people(site: SimpleNamespace) -> None:
    assert site.server.username in site.client.people().values()


def meet_projects(site: SimpleNamespace) -> None:
    (found,) = [found for found in site.client.projects() if found["id"] == site.project]
    assert (found["title"], found["description"]) == ("client", "of test_client")


def meet_project(site: SimpleNamespace) -> None:
    found = site.client.project(site.project)
    assert (found["label_config"], found["maximum_annotations"]) == (CONFIG, 1)
    with pytest.raises(LabelStudioMissing):
        site.client.project(GONE)


def meet_create_project(site: SimpleNamespace) -> None:
    made = site.client.create_project({"title": "another", "label_config": CONFIG, "sampling": "Uniform sampling"})
    assert site.client.project(made["id"])["sampling"] == "Uniform sampling"
    site.client._call("DELETE", f"/api/projects/{made['id']}/")
    with pytest.raises(LabelStudioRefused, match="title"):
        site.client.create_project({"title": "ab"})


def meet_change_project(site: SimpleNamespace) -> None:
    site.client.change_project(site.project, {"maximum_annotations": 1, "sampling": "Sequential sampling"})
    assert site.client.project(site.project)["sampling"] == "Sequential sampling"


def meet_import_tasks(site: SimpleNamespace) -> None:
    data = [{"data": {"rgb": f"{n}.png"}} for n in range(2)]
    identifiers = site.client.import_tasks(site.project, data)["task_ids"]
    assert [site.client.task(identifier)["data"] for identifier in identifiers] == [row["data"] for row in data]
    assert identifiers == sorted(identifiers)
    with pytest.raises(LabelStudioRefused, match="rgb"):
        site.client.import_tasks(site.project, [{"data": {"dem": "no picture"}}])


def meet_tasks(site: SimpleNamespace) -> None:
    first, *others = site.tasks
    assert [found["id"] for found in site.client.tasks(site.project, after_id=first)] == others
    (found,) = site.client.tasks(site.project, after_id=others[0])
    assert found["predictions"][0]["result"] == [REGION]
    brief = next(site.client.tasks(site.project, after_id=first, full=False))
    assert "predictions" not in brief
    later = site.client.server_time + timedelta(hours=1)
    assert not list(site.client.tasks(site.project, created_since=later))
    assert not list(site.client.tasks(site.project, changed_since=later))
    with pytest.raises(LabelStudioMissing):
        list(site.client.tasks(GONE))


def meet_task(site: SimpleNamespace) -> None:
    found = site.client.task(site.tasks[0])
    assert (found["id"], found["data"], found["annotations"]) == (site.tasks[0], {"rgb": "0.png"}, [])
    assert [prediction["result"] for prediction in found["predictions"]] == [[REGION]]
    with pytest.raises(LabelStudioMissing):
        site.client.task(GONE)


def meet_change_task(site: SimpleNamespace) -> None:
    data = site.client.task(site.tasks[0])["data"] | {"note": "draw it again"}
    assert site.client.change_task(site.tasks[0], data)["data"] == data
    assert site.client.task(site.tasks[0])["data"] == data
    some = site.client.tasks(site.project, only=[site.tasks[0], GONE])
    assert [found["data"] for found in some] == [data]


def meet_delete_task(site: SimpleNamespace) -> None:
    site.client.delete_task(site.tasks[0])
    assert [found["id"] for found in site.client.tasks(site.project, only=site.tasks)] == site.tasks[1:]


def meet_annotation(site: SimpleNamespace) -> None:
    prediction = site.client.task(site.tasks[0])["predictions"][0]
    made = site.annotate(site.tasks[0], parent_prediction=prediction["id"])
    found = site.client.annotation(made)
    assert (found["id"], found["task"], found["result"], found["lead_time"]) == (made, site.tasks[0], [REGION], 3.5)
    assert found["parent_prediction"] == prediction["id"]
    assert isinstance(found["updated_at"], str)
    with pytest.raises(LabelStudioMissing):
        site.client.annotation(GONE)


def meet_prediction(site: SimpleNamespace) -> None:
    given = site.client.task(site.tasks[0])["predictions"][0]
    found = site.client.prediction(given["id"])
    assert (found["task"], found["model_version"], found["result"]) == (site.tasks[0], "v1", [REGION])
    with pytest.raises(LabelStudioMissing):
        site.client.prediction(GONE)


def meet_import_predictions(site: SimpleNamespace) -> None:
    given = [{"task": task, "model_version": "v2", "score": 0.25, "result": []} for task in site.tasks]
    assert site.client.import_predictions(site.project, given) == 3
    found = site.client.task(site.tasks[1])["predictions"]
    assert {(row["model_version"], row["score"]) for row in found} == {("v1", 0.5), ("v2", 0.25)}


def meet_predictions(site: SimpleNamespace) -> None:
    site.client.import_predictions(site.project, [{"task": site.tasks[0], "model_version": "v2", "result": []}])
    assert {row["model_version"] for row in site.client.predictions(site.tasks[0])} == {"v1", "v2"}
    assert [row["result"] for row in site.client.predictions(site.tasks[1])] == [[REGION]]


def meet_delete_prediction(site: SimpleNamespace) -> None:
    first, second, _ = site.tasks
    (gone,) = site.client.predictions(first)
    site.client.delete_prediction(gone["id"])
    assert [len(site.client.predictions(task)) for task in (first, second)] == [0, 1]
    with pytest.raises(LabelStudioRefused, match="parent_prediction"):  # why it is not done while somebody may be at it
        site.annotate(first, parent_prediction=gone["id"])


def meet_views(site: SimpleNamespace) -> None:
    before = len(site.client.views(site.project))
    site.client.create_view(site.project, {"title": "mine"})
    assert len(site.client.views(site.project)) == before + 1


def meet_create_view(site: SimpleNamespace) -> None:
    data = {"title": "in order", "type": "list", "target": "tasks", "ordering": ["-tasks:id"]}
    made = site.client.create_view(site.project, data)
    answer = site.client._object("GET", "/api/tasks/", params={"project": site.project, "view": made["id"]})
    identifiers = [found["id"] for found in answer["tasks"]]
    assert identifiers == sorted(identifiers, reverse=True)


def meet_change_view(site: SimpleNamespace) -> None:
    made = site.client.create_view(site.project, {"title": "one", "ordering": ["tasks:predictions_score"]})
    site.client.change_view(made["id"], site.project, {"title": "two", "ordering": ["tasks:id"]})
    (found,) = [found for found in site.client.views(site.project) if found["id"] == made["id"]]
    assert found["data"] == {"title": "two", "ordering": ["tasks:id"]}


def meet_webhooks(site: SimpleNamespace) -> None:
    made = site.client.create_webhook(site.hook)
    assert made["id"] in {found["id"] for found in site.client.webhooks(site.project)}


def in_order(hook: dict[str, Any]) -> dict[str, Any]:
    """Label Studio gives a webhook's actions in any order."""
    return hook | {"actions": sorted(hook["actions"])}


def meet_create_webhook(site: SimpleNamespace) -> None:
    made = site.client.create_webhook(site.hook)
    assert in_order({name: made[name] for name in site.hook}) == in_order(site.hook)


def meet_change_webhook(site: SimpleNamespace) -> None:
    made = site.client.create_webhook(site.hook)
    fields = {name: value for name, value in site.hook.items() if name != "project"}
    site.client.change_webhook(made["id"], fields | {"url": "http://127.0.0.1:9/other", "headers": {"X-B": "c"}})
    (found,) = [found for found in site.client.webhooks(site.project) if found["id"] == made["id"]]
    assert (found["url"], found["headers"]) == ("http://127.0.0.1:9/other", {"X-B": "c"})
    assert in_order(found)["actions"] == in_order(site.hook)["actions"]


def meet_delete_webhook(site: SimpleNamespace) -> None:
    made = site.client.create_webhook(site.hook)
    site.client.delete_webhook(made["id"])
    assert made["id"] not in {found["id"] for found in site.client.webhooks(site.project)}


def meet_ml_backends(site: SimpleNamespace) -> None:
    made = site.client.create_ml_backend({"project": site.project, "url": site.backend, "title": "v1"})
    assert made["id"] in {found["id"] for found in site.client.ml_backends(site.project)}


def meet_create_ml_backend(site: SimpleNamespace) -> None:
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "u", "basic_auth_pass": "p"}
    made = site.client.create_ml_backend({"project": site.project, "url": site.backend, "title": "v1"} | login)
    assert (made["title"], made["url"], made["basic_auth_user"]) == ("v1", site.backend, "u")
    with pytest.raises(LabelStudioRefused, match="health check failed"):
        site.client.create_ml_backend({"project": site.project, "url": "http://127.0.0.1:9", "title": "nobody"})


def meet_change_ml_backend(site: SimpleNamespace) -> None:
    made = site.client.create_ml_backend({"project": site.project, "url": site.backend, "title": "v1"})
    changed = {"project": site.project, "url": site.backend, "title": "v2"}
    assert site.client.change_ml_backend(made["id"], changed)["title"] == "v2"
    assert "v2" in {found["title"] for found in site.client.ml_backends(site.project)}


MEETINGS: dict[str, Callable[[SimpleNamespace], None]] = {
    name.removeprefix("meet_"): function for name, function in list(globals().items()) if name.startswith("meet_")
}


def test_every_public_method_has_its_meeting_with_the_real_server():
    assert sorted(MEETINGS) == PUBLIC


@pytest.mark.labelstudio
@pytest.mark.parametrize("method", PUBLIC)
def test_a_method_does_in_label_studio_what_it_says(method, client, labelstudio, project, tasks, backend):
    def annotate(task: int, **fields: Any) -> int:
        body = {"result": [REGION], "lead_time": 3.5} | fields
        return client._object("POST", f"/api/tasks/{task}/annotations/", content=body)["id"]

    hook = {
        "url": "http://127.0.0.1:9/hook",
        "project": project,
        "headers": {"X-A": "b"},
        "actions": ["ANNOTATION_CREATED", "TASKS_DELETED"],
        "send_payload": True,
        "send_for_all_actions": False,
        "is_active": True,
    }
    client.met.clear()
    MEETINGS[method](
        SimpleNamespace(
            client=client,
            server=labelstudio,
            project=project,
            tasks=tasks,
            annotate=annotate,
            hook=hook,
            backend=backend,
        )
    )
    assert method in client.met


@pytest.mark.labelstudio
def test_a_page_of_html_becomes_one_sentence(client, project):
    with pytest.raises(LabelStudioMissing) as caught:
        client._call("PATCH", f"/api/ml/{project}/", content={})  # no route: Label Studio answers with a page
    sentence = str(caught.value)
    assert f"PATCH /api/ml/{project}/" in sentence
    assert "<" not in sentence
    assert len(sentence) < 200


def test_slow_libraries_are_loaded_by_who_needs_them_only():
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'thawloop.settings'; django.setup();"
        "import labeling.labelstudio.urls, thawloop.urls;"
        "from labeling.labelstudio.client import Client;"
        "slow = {'label_studio_sdk', 'scipy', 'pandas', 'pyogrio', 'matplotlib', 'torch'} & set(sys.modules);"
        "assert not slow, f'loaded at once: {slow}';"
        "Client('http://127.0.0.1:9', 'a' * 40)._connected();"
        "assert 'nltk' not in sys.modules and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
