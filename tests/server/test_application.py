"""The ML backend's five routes, called as Label Studio calls them and as strangers do."""

import io
import json
from base64 import b64encode

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_backend.server.application import MAX_BODY_BYTES, application
from tests.labeling.build import build_champion, build_prediction, build_tasks

SECRET, WEBHOOK_SECRET = "a-long-secret", "what-annotators-can-read"
LOGIN = "Basic " + b64encode(f"label-studio:{SECRET}".encode()).decode()


@pytest.fixture(autouse=True)
def secret(request):
    from django.test import override_settings

    with override_settings(THAWLOOP_ML_BACKEND_SECRET=SECRET, THAWLOOP_WEBHOOK_SECRET=WEBHOOK_SECRET):
        yield


@pytest.fixture(autouse=True)
def one_connection():
    """Keep the test's transaction: Django's own test client does the same."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def call(path, body=None, *, method=None, login=LOGIN, **environ):
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    request = {
        "REQUEST_METHOD": method or ("GET" if body is None else "POST"),
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }
    if login:
        request["HTTP_AUTHORIZATION"] = login
    status = []
    answer = b"".join(application(request | environ, lambda line, headers: status.append(line)))
    return int(status[0].split()[0]), json.loads(answer)


def predict(tasks, project="6.1795333861"):
    body = {"tasks": tasks, "project": project, "label_config": "<View/>", "params": {"context": None}}
    return call("/predict", body)


def asked(*tasks):
    return [{"id": n, "data": {"platform_task_uuid": str(task.pk)}} for n, task in enumerate(tasks, start=1)]


def test_health_needs_no_login(db):
    assert call("/health", login="") == (200, {"status": "UP", "model_class": "ThawLoop"})


def test_setup_names_the_champion(campaign):
    body = {"project": "6.1795333861", "schema": "<View/>", "access_token": "x", "extra_params": {}}
    assert call("/setup", body) == (200, {"model_version": "no-model"})
    build_champion(campaign)
    assert call("/setup", body) == (200, {"model_version": "peel-v1"})
    assert call("/setup", body | {"project": "99.1"}) == (200, {"model_version": "no-model"})


def test_predict_answers_with_the_champions_stored_predictions_in_order(campaign):
    first, second, third = build_tasks(campaign, 3)
    build_champion(campaign, 1)
    champion = build_champion(campaign, 2)
    build_prediction(third.tile, champion)
    build_prediction(first.tile, champion, instances=[])
    status, answer = predict([*asked(third, second, first), {"id": 9, "data": {"other": 1}}])
    assert status == 200
    results = answer["results"]
    assert [result["model_version"] for result in results] == ["peel-v2", "no-model", "peel-v2", "no-model"]
    assert [len(result["result"]) for result in results] == [2, 0, 0, 0]
    assert results[2]["score"] < results[0]["score"] < 1
    assert results[3]["score"] is None


def test_predict_takes_the_same_number_of_queries_for_one_task_and_for_many(campaign, django_assert_max_num_queries):
    champion = build_champion(campaign)
    tasks = build_tasks(campaign, 12)
    for task in tasks:
        build_prediction(task.tile, champion)
    with django_assert_max_num_queries(9):
        _, answer = predict(asked(*tasks))
    assert len(answer["results"]) == 12


def test_another_projects_tasks_are_not_given_away(campaign):
    (task,) = build_tasks(campaign, 1)
    build_prediction(task.tile, build_champion(campaign))
    _, answer = predict(asked(task), project="7.1")
    assert answer["results"] == [{"model_version": "no-model", "score": None, "result": []}]


def test_versions_are_listed(campaign):
    build_champion(campaign, 1)
    build_champion(campaign, 2)
    assert call("/versions")[1]["versions"] == ["peel-v2", "peel-v1"]


def test_webhooks_are_acknowledged(db):
    assert call("/webhook", {"action": "START_TRAINING"}, login="")[0] == 200


@pytest.mark.parametrize(
    "login",
    [
        "",
        "Basic",
        "Basic !!!",
        "Bearer x",
        "Basic " + b64encode(b"a:b").decode(),
        "Basic " + b64encode(f"label-studio:{WEBHOOK_SECRET}".encode()).decode(),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/setup"])
def test_predictions_are_given_only_with_the_login(campaign, login, path):
    assert call(path, {"tasks": [], "project": "6.1"}, login=login)[0] == 401
    assert call(path, {"tasks": [], "project": "6.1"})[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "environ", "status"),
    [
        ("/predict", b"{", {}, 400),
        ("/predict", b"[]", {}, 400),
        ("/predict", b"[" * 100_000, {}, 400),
        ("/predict", {"project": "6.1"}, {}, 400),
        ("/predict", {"tasks": {}}, {}, 400),
        ("/predict", b"{}", {"CONTENT_LENGTH": "many"}, 400),
        ("/predict", b"{}", {"CONTENT_LENGTH": "-5"}, 400),
        ("/predict", b"{}", {"CONTENT_LENGTH": str(MAX_BODY_BYTES + 1)}, 413),
        ("/predict", None, {}, 405),
        ("/train", {}, {}, 404),
    ],
)
def test_bad_requests_are_said_to_be_so(campaign, path, body, environ, status):
    answer = call(path, body, **environ)
    assert answer[0] == status
    assert answer[1]["detail"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values | st.fixed_dictionaries({"data": json_values}), max_size=6), json_values)
def test_whatever_the_tasks_there_is_a_result_for_each_and_a_score_that_is_a_number(campaign, tasks, project):
    status, answer = predict(tasks, project)
    assert status == 200
    assert len(answer["results"]) == len(tasks)
    assert all(result["score"] is None or 0 <= result["score"] < 1 for result in answer["results"])


def test_a_database_that_is_away_gives_an_error_status_at_once(campaign, settings):
    (task,) = build_tasks(campaign, 1)
    connection.close()
    with connection.execute_wrapper(_away):
        assert call("/health")[0] == 503
        assert predict(asked(task)) == (503, {"detail": "The database does not answer."})


def _away(*args):
    from django.db import OperationalError

    raise OperationalError("connection refused")
