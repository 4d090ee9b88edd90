"""The guided run where something does not go as it should. The whole of it runs in tests/e2e/test_loop.py."""

import json
import sys
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from demo import __main__ as program
from demo import loop as loop_module
from demo.generated import generated_campaign
from demo.loop import DemoFailed, Loop
from demo.scenes import SceneSize
from demo.screen import Screen
from tests.labeling.build import build_campaign, build_tasks
from thawloop.core.jobs import cancel_job
from thawloop.core.models import Job
from thawloop.training.models import Retraining
from thawloop.training.services import cancel_retraining

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


@pytest.fixture
def loop(screen, tmp_path) -> Loop:
    spec: Any = SimpleNamespace(labels=[], demo=SimpleNamespace())
    loop = Loop(spec, Screen(Console(file=screen, width=200, highlight=False)), tmp_path / "exports")
    loop.campaign = build_campaign()
    return loop


def on_first_pause(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Have something done while the run waits."""
    pauses = iter([act])
    monkeypatch.setattr("time.sleep", lambda _: next(pauses, lambda: None)())


def test_a_retraining_that_somebody_cancels_does_not_end_the_run(loop, screen, monkeypatch):
    retraining = Retraining.objects.create(campaign=loop.campaign, number=1, reason="a round is done")
    on_first_pause(monkeypatch, lambda: cancel_retraining(retraining))
    assert loop._round([])
    assert f"Retraining {retraining.number} was cancelled" in screen.getvalue()
    summary = loop.summary()
    assert (summary.rounds, summary.urls.keys()) == ([], {"thawloop", "label_studio", "project"})


def test_a_choice_of_tiles_that_somebody_cancels_does_not_end_the_run(loop, screen, monkeypatch):
    on_first_pause(monkeypatch, lambda: cancel_job(Job.objects.get(function="ml_backend.jobs.acquire"), reason="no"))
    assert loop._round([])
    assert "Choosing tiles was cancelled" in screen.getvalue()


def test_a_run_is_no_success_when_a_job_failed_that_another_one_mended(loop):
    page = "Label Studio declined it: <!DOCTYPE html><html><title>Page not found</title><body>a page</body></html>"
    fields = {"function": "labeling.labelstudio.jobs.refresh", "key": "refresh:1"}
    Job.objects.create(state="failed", error=page, **fields)
    Job.objects.create(state="succeeded", **fields)
    with pytest.raises(DemoFailed) as caught:
        loop.check()
    assert "1 of its jobs failed. Refresh: Label Studio declined it: Page not found." in str(caught.value)
    assert "<" not in str(caught.value)


def test_jobs_of_before_the_run_and_cancelled_ones_are_no_failures(loop):
    Job.objects.create(function="x.old", key="1", state="failed")
    later = Loop(loop.spec, loop.screen, loop.folder)
    Job.objects.create(function="x.new", key="2", state="cancelled")
    later.check()


@pytest.mark.parametrize("failed", ["a round", "a job", "nothing"])
def test_the_program_leaves_its_summary_and_says_what_failed(failed, tmp_path, monkeypatch, capsys):
    def run(loop: Loop, rounds: int) -> None:
        loop.campaign = build_campaign()
        build_tasks(loop.campaign, 1)
        if failed == "a round":
            raise DemoFailed("The round went wrong.")
        if failed == "a job":
            Job.objects.create(
                function="labeling.labelstudio.jobs.refresh", key="1", state="failed", error="It went wrong."
            )

    monkeypatch.setattr(loop_module.Loop, "run", run)
    file, summary = (
        generated_campaign(tmp_path / "scenes", size=SceneSize(columns=6, rows=5)),
        tmp_path / "summary.json",
    )
    monkeypatch.setattr(sys, "argv", ["demo", str(file), "--summary", str(summary)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert program.main() == (0 if failed == "nothing" else 1)
    assert ("went wrong" in capsys.readouterr().err) == (failed != "nothing")
    assert json.loads(summary.read_text())["rounds"] == []
