"""After an upgrade the loop goes on: annotations, a retraining that begins with the champion of before, a rollback."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.upgrade.additions import CORNERS, LS_USER, submission
from tests.upgrade.installation import build_networks
from tests.upgrade.seen import client_of, get

if TYPE_CHECKING:
    from tests.upgrade.conftest import Installation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def give_weights() -> Callable[[str, str, Path], None]:
    """Networks that can be trained and asked."""
    return build_networks


def test_a_job_whose_worker_had_died_is_done(used: "Installation") -> None:
    from thawloop.core.jobs import reconcile_jobs
    from thawloop.core.models import Job

    (dead,) = Job.objects.filter(state="running")
    reconcile_jobs()
    work("predict:")

    dead.refresh_from_db()
    assert (dead.state, dead.attempt, dead.result["stored"]) == ("succeeded", 2, 2)


def test_the_loop_goes_on(used: "Installation") -> None:
    """New annotations make a retraining due; it starts from the champion of before and is measured against it."""
    lea = client_of("lea")
    settings = get(lea, "campaigns/demo")["detector"] | {"iterations": 2, "batch_size": 2}
    assert lea.patch("/api/campaigns/demo/", {"detector": settings}, "json").status_code == 200
    policy = f"policies/{get(lea, 'policies')['results'][0]['id']}"
    known = get(lea, f"{policy}/explain")
    wanted = {"min_new_tiles": known["new_tiles"] + 4, "gate_min_gain": -1.0}
    assert lea.patch(f"/api/{policy}/", wanted, "json").status_code == 200
    assert get(lea, f"{policy}/explain")["due"] is False

    annotate_what_waits()
    before = get(lea, "models/demo-v3")
    work("consider:", "retraining:")

    (retraining, *_) = get(lea, "retrainings")["results"]
    model = get(lea, f"models/{retraining['model_version']}")
    runs = [run for run in get(lea, "runs")["results"] if run["retraining"] == retraining["id"]]
    assert (retraining["number"], retraining["state"], retraining["promoted"]) == (4, "done", True)
    assert [run["init"] for run in runs] == [{"checkpoint": before["path"]}]
    assert (model["name"], model["parent"], model["aliases"]) == ("demo-v4", "demo-v3", ["champion"])
    measured = {
        row["model_version"] for row in get(lea, "evaluations")["results"] if row["release"] == retraining["release"]
    }
    assert measured == {"demo-v3", "demo-v4"}
    assert command("rollback", campaign="demo", reason="It was tried.")["champion"] == "demo-v3"
    assert command("retrain", campaign="demo", dry_run=True)["due"] is False


def command(name: str, **options: Any) -> dict[str, Any]:
    """What a command answers programs."""
    from django.core.management import call_command

    out = StringIO()
    call_command(name, json=True, stdout=out, **options)
    answer: dict[str, Any] = json.loads(out.getvalue())
    return answer


def annotate_what_waits() -> None:
    """As Label Studio tells of it: the four tasks that were chosen last are drawn on."""
    from labeling.labelstudio.submissions import record_payload
    from labeling.models import AnnotationTask

    for number, task in enumerate(AnnotationTask.objects.filter(state__in=["open", "pending"]), 1000):
        drawn = submission(number, CORNERS, after=datetime.now(UTC))
        record_payload(task, drawn, people=LS_USER)


def work(*keys: str) -> None:
    """Do what waits under keys that begin so, as workers would."""
    from thawloop.core.jobs import run_inline
    from thawloop.core.models import Job

    while jobs := [job for job in Job.objects.filter(state="queued").order_by("created") if job.key.startswith(keys)]:
        job = run_inline(jobs[0].pk)
        assert job.state == "succeeded", f"{job.key}: {job.error}"
