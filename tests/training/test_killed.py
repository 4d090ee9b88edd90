"""kill -9 in the middle of a step: the reconciler sees to it that the retraining goes on, and nothing is done twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.db import connection

from ml_backend.detector.lock import lock_folder
from tests.training.world import drive, queued
from thawloop.core.jobs import reconcile_jobs, run_inline
from thawloop.core.models import AuditEntry, Job
from thawloop.core.storage import artifact
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.training.models import Evaluation, TrainingRun
from thawloop.training.services import advance_all, start_retraining, work_folder

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_SECONDS = 60


def run_until_killed(job: Job, point: str, settings) -> None:
    """Run a job in another process until it kills itself there."""
    base, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    environment = {
        **os.environ,
        "DATABASE_URL": f"{base}/{connection.settings_dict['NAME']}",
        "DJANGO_SETTINGS_MODULE": "thawloop.settings",
        "THAWLOOP_ARTIFACTS": settings.THAWLOOP_ARTIFACTS,
        "THAWLOOP_DATA_ROOTS": ",".join(settings.THAWLOOP_DATA_ROOTS),
        "THAWLOOP_DEVICE": "cpu",
        "THAWLOOP_TORCH_THREADS": "1",
        "THAWLOOP_JOB_LEASE_SECONDS": "2",
        "THAWLOOP_JOB_HEARTBEAT_SECONDS": "0.3",
    }
    script = Path(__file__).with_name("dying.py")
    process = subprocess.run([sys.executable, str(script), str(job.pk), point], env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-3000:]


def reconcile_until_queued_again(job: Job) -> None:
    """The lease runs out, and the reconciler queues the job for another attempt."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        reconcile_jobs()
        job.refresh_from_db()
        if job.state == "queued":
            return
        assert time.monotonic() < deadline, f"{job} was never queued again"
        time.sleep(0.2)


@pytest.mark.parametrize(
    "point",
    [
        "published",
        pytest.param("trained", marks=pytest.mark.slow),
        pytest.param("recorded", marks=pytest.mark.slow),
        pytest.param("committed", marks=pytest.mark.slow),
    ],
)
def test_killed_fine_tuning_goes_on_and_makes_one_model(labelled: "Campaign", point: str, settings) -> None:
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0}
    labelled.save()
    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    job = Job.objects.get(key=f"retraining:{retraining.pk}:finetune")

    run_until_killed(job, point, settings)

    run = TrainingRun.objects.get()
    published = artifact(f"models/{labelled.name}/{labelled.name}-v1").exists()
    assert (published, bool(run.path), ModelVersion.objects.count()) == {
        "trained": (False, False, 0),
        "published": (True, False, 0),
        "recorded": (True, False, 0),
        "committed": (True, True, 1),
    }[point]
    advance_all()  # another attempt is on its way: nothing to do yet
    reconcile_until_queued_again(job)
    assert drive()[:2] == (["finetune", "evaluate"])

    retraining.refresh_from_db()
    job.refresh_from_db()
    assert (retraining.state, job.state, job.attempt) == ("done", "succeeded", 2)
    version = ModelVersion.objects.get()
    assert champion(labelled) == version
    assert Evaluation.objects.count() == TrainingRun.objects.count() == 1
    assert AuditEntry.objects.filter(action="training.register_model").count() == 1
    assert AuditEntry.objects.filter(action="training.record_run").count() == 1


def test_fine_tuning_waits_for_an_attempt_that_is_not_dead_yet(labelled: "Campaign") -> None:
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0}
    labelled.save()
    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    job = Job.objects.get(key=f"retraining:{retraining.pk}:finetune")
    folder = work_folder(TrainingRun.objects.get())
    folder.mkdir(parents=True)

    with lock_folder(folder, "Another process is training here."):
        run_inline(job.pk)

    job.refresh_from_db()
    assert (job.state, job.attempt) == ("queued", 2)
    assert "Another process is training" in job.error


@pytest.mark.slow
@pytest.mark.parametrize("identity", ["", "that of another training"])
def test_a_spoilt_run_folder_costs_time_and_not_the_retraining(labelled: "Campaign", identity: str) -> None:
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0}
    labelled.save()
    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    folder = work_folder(TrainingRun.objects.get())
    folder.mkdir(parents=True)
    (folder / "state.pth").write_bytes(b"what a failing disk left")
    if identity:
        (folder / "run.json").write_text(identity)

    drive()

    retraining.refresh_from_db()
    assert retraining.state == "done"
    assert champion(labelled) == ModelVersion.objects.get()
