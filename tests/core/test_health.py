"""Health and metrics, asked over HTTP."""

import threading
import time
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from thawloop.core import reconciler, selectors
from thawloop.core.models import Job


@pytest.fixture(autouse=True)
def storage(settings, tmp_path: Path) -> None:
    settings.THAWLOOP_ARTIFACTS = str(tmp_path / "artifacts")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """`only("postgres", …)`: leave out the checks of other rooms and processes."""

    def keep(*names: str) -> None:
        checks = {name: check for name, check in selectors._checks.items() if name in names}
        monkeypatch.setattr(selectors, "_checks", checks)

    return keep


def test_alive_needs_neither_database_nor_redis(client: Client, settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = client.get("/healthz")  # pytest-django refuses database access in this test
    assert (answer.status_code, answer.content) == (200, b"ok\n")


@pytest.mark.django_db(transaction=True)
def test_everything_there_is_well(client: Client, only) -> None:
    only("postgres", "redis", "storage")
    answer = client.get("/api/health/")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert {name: part["ok"] for name, part in answer.json()["components"].items()} == {
        "postgres": True,
        "redis": True,
        "storage": True,
    }


@pytest.mark.django_db(transaction=True)
def test_details_are_for_people_who_are_logged_in(client: Client, only) -> None:
    only("postgres")
    assert "detail" not in client.get("/api/health/").json()["components"]["postgres"]
    client.force_login(User.objects.create_user("ada"))
    detail = client.get("/api/health/").json()["components"]["postgres"]["detail"]
    assert detail.startswith("PostgreSQL 1")
    assert "PostGIS 3" in detail


@pytest.mark.django_db(transaction=True)
def test_without_redis_it_is_unavailable_and_says_so(client: Client, settings, only) -> None:
    only("redis", "postgres")
    settings.REDIS_URL = "redis://:secret@127.0.0.1:1/0"
    answer = client.get("/api/health/")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    detail = selectors.health()["redis"]["detail"]
    assert "Redis does not answer" in detail
    assert "secret" not in detail


@pytest.mark.django_db(transaction=True)
def test_storage_that_cannot_be_written_is_unavailable(client: Client, settings, only, tmp_path: Path) -> None:
    only("storage")
    (tmp_path / "file").write_text("in the way")
    settings.THAWLOOP_ARTIFACTS = str(tmp_path / "file" / "artifacts")
    assert client.get("/api/health/").status_code == 503


@pytest.mark.django_db(transaction=True)
def test_a_missing_worker_degrades_but_does_not_take_the_site_down(client: Client, only, live_redis) -> None:
    only("postgres", "workers", "reconciler")
    answer = client.get("/api/health/")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert "manage.py worker --queue default" in selectors.health()["workers"]["detail"]


def test_a_check_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(selectors, "_checks", {})
    monkeypatch.setattr(selectors, "TIMEOUT_SECONDS", 0.2)
    selectors.register_health_check("stuck", lambda: str(release.wait(60)))
    found = selectors.health()["stuck"]
    release.set()
    assert (found["ok"], found["detail"]) == (False, "no answer within 0 s")


@pytest.mark.django_db(transaction=True)
def test_a_reconciler_at_work_is_seen_by_others_until_it_ends() -> None:
    def wait_until_it_is(expected: bool) -> None:
        deadline = time.monotonic() + 60
        while reconciler.is_running() is not expected:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    stop = threading.Event()
    wait_until_it_is(False)
    presence = threading.Thread(target=reconciler.show_presence, args=(stop,))
    presence.start()
    wait_until_it_is(True)
    stop.set()
    presence.join()
    wait_until_it_is(False)


@pytest.mark.django_db
def test_metrics_count_jobs_by_queue_and_state(client: Client) -> None:
    Job.objects.create(function="thawloop.x", key="a", queue="gpu")
    Job.objects.create(function="thawloop.x", key="b", queue="gpu")
    Job.objects.create(function="thawloop.x", key="c", state=Job.State.FAILED)
    text = client.get("/metrics", headers={"Host": "localhost"}).content.decode()
    assert 'thawloop_jobs{queue="gpu",state="queued"} 2.0' in text
    assert 'thawloop_jobs{queue="default",state="failed"} 1.0' in text
    assert 'thawloop_jobs{queue="raster",state="running"} 0.0' in text
    assert 'thawloop_oldest_queued_job_seconds{queue="gpu"}' in text
    assert "django_http_requests_total_by_method_total" in text
    assert "thawloop_database_up 1.0" in text


@pytest.mark.django_db(transaction=True)
def test_metrics_of_requests_are_there_without_the_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    with monkeypatch.context() as without:
        without.setitem(connection.settings_dict, "PORT", "1")
        answer = client.get("/metrics", headers={"Host": "localhost"})
    connection.close()
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "thawloop_database_up 0.0" in text
    assert "thawloop_jobs" not in text
    assert "django_http_requests_total_by_method_total" in text
