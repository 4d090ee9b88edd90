"""The process that mends."""

import threading

import pytest
from django.db import connection

from thawloop.core import reconciler
from thawloop.core.context import current_actor
from thawloop.core.reconciler import Reconciler, register_reconciler, run_forever, run_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_registered", {})


def test_it_acts_under_its_own_name() -> None:
    assert run_once(Reconciler("x", lambda: [current_actor().name], 1)) == ["reconciler"]


def test_only_those_that_know_campaigns_are_given_one() -> None:
    assert run_once(Reconciler("x", lambda campaign: [f"only {campaign}"], 1, by_campaign=True), "site") == [
        "only site"
    ]
    assert run_once(Reconciler("y", lambda: ["everything"], 1), "site") == ["everything"]


def test_two_processes_do_not_run_the_same_reconciler_at_once() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> list[str]:
        inside.set()
        assert go_on.wait(60)
        return ["done"]

    results = []

    def run_slowly() -> None:
        results.append(run_once(Reconciler("same", slow, 1)))
        connection.close()

    first = threading.Thread(target=run_slowly)
    first.start()
    assert inside.wait(60)
    assert run_once(Reconciler("same", lambda: ["twice"], 1)) == []
    assert run_once(Reconciler("other", lambda: ["other"], 1)) == ["other"]
    go_on.set()
    first.join()
    assert results == [["done"]]
    assert run_once(Reconciler("same", lambda: ["again"], 1)) == ["again"]


def test_one_that_fails_or_is_slow_does_not_stop_the_others() -> None:
    stop, runs, failures = threading.Event(), [], []

    def good() -> list[str]:
        runs.append(1)
        if len(runs) >= 3 and len(failures) >= 2:
            stop.set()
        return []

    def bad() -> list[str]:
        failures.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT nonsense")
        return []

    register_reconciler("good", good, 0.05)
    register_reconciler("bad", bad, 0.05)
    register_reconciler("slow", lambda: [str(stop.wait(60))], 0.05)
    run_forever(stop)
    assert len(runs) >= 3
    assert len(failures) >= 2


def test_a_lost_connection_is_replaced() -> None:
    stop, runs = threading.Event(), []

    def cut() -> list[str]:
        runs.append(1)
        if len(runs) == 2:
            stop.set()
            return []
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return []

    register_reconciler("cut", cut, 0.05)
    run_forever(stop)
    assert len(runs) == 2
