"""One turn from labels to a champion, with real tiny trainings; and what happens when it is disturbed."""

import json
from typing import TYPE_CHECKING

import pytest

from labeling.models import Prediction
from tests.training.world import TEST_TILES, TRAIN_TILES, drive, made_by, make_model, queued, write_checkpoint
from thawloop.catalog.models import Scene
from thawloop.core.jobs import run_inline
from thawloop.core.models import AuditEntry, Job
from thawloop.core.storage import artifact
from thawloop.registry.models import ModelVersion
from thawloop.registry.selectors import champion
from thawloop.registry.services import promote, register_model
from thawloop.releases.services import freeze_release
from thawloop.training.architecture import Architecture
from thawloop.training.errors import RetrainingConflict, RetrainingRefused
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.selectors import CampaignState, learning_curve, outlook
from thawloop.training.services import (
    advance_all,
    advance_retraining,
    cancel_retraining,
    finish_predicting,
    retry_retraining,
    start_retraining,
)

if TYPE_CHECKING:
    from thawloop.campaigns.models import Campaign

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("neighbour")]


def test_first_retraining_goes_from_labels_to_a_champion_that_has_predicted_everything(labelled: "Campaign") -> None:
    retraining = start_retraining(labelled, reason="the first")
    assert drive() == ["release", "pretrain:rgb", "pretrain:dem", "finetune", "evaluate", "predict"]

    retraining.refresh_from_db()
    assert (retraining.state, retraining.error, retraining.promoted) == ("done", "", True)
    assert retraining.finished is not None
    assert retraining.release.state == "ready"
    version = labelled.model_versions.get()
    assert champion(labelled) == version
    assert (version.name, version.number, version.retraining, version.release) == (
        "site-v1",
        1,
        retraining,
        retraining.release,
    )
    assert version.card["config"]["modalities"] == ["rgb", "dem"]
    assert sorted(path.name for path in artifact(version.path).iterdir()) == ["log", "model.json", "model.safetensors"]
    evaluation = version.evaluations.get()
    assert evaluation.ap50 is not None
    assert evaluation.metrics["n_instances"] == 2
    assert Prediction.objects.filter(model_version=version).count() == 18
    assert labelled.promotions.get().kind == "gate"
    runs = retraining.runs.order_by("id")
    assert [(run.stage, getattr(run.modality, "name", None)) for run in runs] == [
        ("pretrain", "rgb"),
        ("pretrain", "dem"),
        ("finetune", None),
    ]
    assert all(run.seconds > 0 and run.device and run.job.state == "succeeded" for run in runs)
    assert [run.job.args["run"] for run in runs] == [run.pk for run in runs]
    assert set(runs[2].init["unimodal"]) == {"rgb", "dem"}
    assert not any(artifact(f"runs/{run.pk}").exists() for run in runs)
    assert Job.objects.filter(function="labeling.labelstudio.jobs.refresh").exists()
    (point,) = learning_curve(labelled)
    assert (point.number, point.labels, point.tiles, point.model_version) == (1, 4, 12, "site-v1")
    states = [entry.after["state"] for entry in AuditEntry.objects.filter(action="training.advance").order_by("id")]
    assert states == ["pretraining", "finetuning", "evaluating", "predicting", "done"]
    trail = AuditEntry.objects.order_by("id")
    assert trail.get(action="releases.materialise").object_id == str(retraining.release.pk)
    assert trail.get(action="training.attach_release").object_id == str(retraining.pk)
    (plan,) = trail.filter(action="training.plan_runs")
    assert plan.after["runs"] == ["pretrain-rgb", "pretrain-dem", "finetune"]
    assert trail.filter(action="training.record_run").count() == 3
    (verdict,) = trail.filter(action="training.decide")
    assert (verdict.after["promoted"], verdict.object_id) == (True, str(retraining.pk))


@pytest.mark.slow
def test_second_retraining_continues_the_champion_and_measures_both_on_its_release(labelled: "Campaign") -> None:
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0}
    labelled.save()
    start_retraining(labelled, reason="one")
    assert drive() == ["release", "finetune", "evaluate", "predict"]
    first = champion(labelled)
    assert outlook(CampaignState(labelled)).stages[1].endswith("starting from the champion site-v1.")

    second = start_retraining(labelled, reason="two")
    assert drive()[:3] == ["release", "finetune", "evaluate"]
    second.refresh_from_db()
    assert second.state == "done"
    version = second.model_version
    assert version.parent == first
    assert TrainingRun.objects.get(retraining=second).init == {"checkpoint": first.path}
    assert {row.model_version for row in second.release.evaluations.all()} == {first, version}
    assert second.promoted is (version.evaluations.get().ap50 > first.evaluations.get(release=second.release).ap50)
    assert [point.number for point in learning_curve(labelled)] == [1, 2]


def test_a_champion_that_was_another_network_is_not_continued(labelled: "Campaign") -> None:
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0}
    labelled.save()
    promote(make_model(labelled), reason="x")
    assert outlook(CampaignState(labelled)).stages[1].endswith("starting from the champion site-v1.")
    card = artifact(labelled.model_versions.get().path) / "model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "architecture": 1}))
    assert "champion" not in outlook(CampaignState(labelled)).stages[1]


def test_second_retrain_while_one_runs_is_refused(labelled: "Campaign") -> None:
    start_retraining(labelled, reason="one")
    with pytest.raises(RetrainingConflict, match=r"Retraining 1 of `site` is running \(releasing\)"):
        start_retraining(labelled, reason="two")
    assert labelled.retrainings.count() == 1


def test_retraining_without_labels_is_refused_in_a_sentence(campaign: "Campaign") -> None:
    with pytest.raises(RetrainingRefused, match="No tile of the train regions is labelled"):
        start_retraining(campaign, reason="hope")
    assert campaign.retrainings.count() == Job.objects.count() == 0


def test_settings_that_make_no_sense_are_refused_before_anything_begins(labelled: "Campaign") -> None:
    labelled.detector = {"itterations": 3}
    labelled.save()
    with pytest.raises(RetrainingRefused, match="did you mean `iterations`"):
        start_retraining(labelled, reason="typo")


@pytest.mark.slow
def test_a_model_may_build_on_another_modality_than_the_one_people_draw_on(labelled: "Campaign") -> None:
    """No test tile has the DEM: it is measured, and predicts, with what is there."""
    labelled.detector = {**labelled.detector, "anchor": "dem"}
    labelled.save()
    start_retraining(labelled, reason="x")
    drive()
    version = champion(labelled)
    assert version is not None
    assert (version.card["config"]["anchor"], version.card["config"]["modalities"]) == ("dem", ["rgb", "dem"])
    assert Prediction.objects.filter(model_version=version).count() == TRAIN_TILES + TEST_TILES


def test_weights_that_are_gone_are_not_started_from(labelled: "Campaign") -> None:
    promote(make_model(labelled), reason="x")
    (artifact(champion(labelled).path) / "model.safetensors").unlink()
    assert "champion" not in outlook(CampaignState(labelled)).stages[3]


def test_worse_challenger_is_kept_back_and_the_champion_goes_on_predicting(labelled: "Campaign") -> None:
    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    retraining.refresh_from_db()
    old = make_model(labelled, 7, release=retraining.release, ap50=0.6)
    promote(old, reason="first", request_predictions_now=False)
    made_by(retraining, 0.5)
    retraining.runs.update(path="models/done")

    advance_retraining(retraining)

    retraining.refresh_from_db()
    assert (retraining.state, retraining.promoted) == ("done", False)
    assert champion(labelled) == old
    asked = set(Job.objects.values_list("function", flat=True))
    assert asked.isdisjoint({"ml_backend.jobs.predict", "labeling.labelstudio.jobs.refresh"})


def test_champion_that_is_made_while_the_challenger_is_measured_is_measured_as_well(
    labelled: "Campaign", monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_backend.jobs import evaluation

    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    retraining.refresh_from_db()
    challenger = make_model(labelled, retraining.number, release=retraining.release)
    ModelVersion.objects.filter(pk=challenger.pk).update(retraining=retraining)
    retraining.runs.update(path="models/done")
    other = make_model(labelled, 7)
    measured = []

    def measure(job: object, of: object, version: ModelVersion, *rest: object) -> dict[str, float]:
        if not measured:
            promote(other, reason="this very moment", request_predictions_now=False)
        measured.append(version)
        return {"ap": 0.2, "ap50": 0.4 if version == other else 0.6, "ap30": 0.7}

    monkeypatch.setattr(evaluation, "_measure", measure)
    advance_retraining(retraining)
    (job,) = [job for job in queued() if job.key.endswith(":evaluate")]
    run_inline(job.pk)

    advance_all()
    retraining.refresh_from_db()
    assert measured == [challenger, other]
    assert (retraining.state, retraining.error, retraining.promoted) == ("predicting", "", True)
    assert "the champion site-v7 0.400" in retraining.verdict


def test_nothing_is_trained_before_the_files_of_the_release_are_written(labelled: "Campaign") -> None:
    frozen = freeze_release(labelled)
    retraining = Retraining.objects.create(campaign=labelled, number=1, reason="x", release=frozen)
    assert advance_retraining(retraining).state == "releasing"
    assert [job.key for job in queued()] == [f"retraining:{retraining.pk}:release"]
    assert not retraining.runs.exists()


def test_what_the_new_champion_predicted_is_shown_to_annotators(labelled: "Campaign") -> None:
    retraining = Retraining.objects.create(
        campaign=labelled, number=1, reason="x", state="predicting", promoted=True, release=freeze_release(labelled)
    )
    finish_predicting(retraining)
    retraining.refresh_from_db()
    assert retraining.state == "done"
    assert Job.objects.get(function="labeling.labelstudio.jobs.refresh").args == {"campaign": labelled.pk}


def test_a_model_that_continued_another_has_it_as_parent(labelled: "Campaign") -> None:
    old = make_model(labelled, 1)
    write_checkpoint("models/site/site-v2", Architecture.wanted(labelled))
    retraining = Retraining.objects.create(campaign=labelled, number=2, reason="x", state="finetuning")
    TrainingRun.objects.create(
        retraining=retraining, stage="finetune", config={}, seed=1, init={"checkpoint": old.path}
    )
    ids = {"number": retraining.number, "retraining": retraining.pk, "parent": old.path}
    version = register_model(retraining.campaign, "models/site/site-v2", **ids)
    assert (version.name, version.parent) == ("site-v2", old)
    assert register_model(retraining.campaign, "models/site/site-v2", **ids) == version


def test_advancing_again_and_again_changes_nothing(labelled: "Campaign") -> None:
    retraining = start_retraining(labelled, reason="x")
    for _ in range(3):
        advance_retraining(retraining)
    assert Job.objects.count() == 1
    assert advance_all() == []
    run_inline(queued()[0].pk)
    before = list(Job.objects.values_list("key", flat=True))
    assert advance_all() == []
    assert list(Job.objects.values_list("key", flat=True)) == before


def test_cancelled_retraining_stops_its_jobs_and_can_be_retried_where_it_stopped(labelled: "Campaign") -> None:
    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    assert len(queued()) == 2  # one pretraining per modality
    cancel_retraining(retraining, reason="too early")
    retraining.refresh_from_db()
    assert (retraining.state, retraining.error) == ("cancelled", "too early")
    assert queued() == []
    assert advance_all() == []
    with pytest.raises(RetrainingConflict, match="cancelled already"):
        cancel_retraining(retraining)

    retry_retraining(retraining)
    retraining.refresh_from_db()
    assert (retraining.state, retraining.finished, retraining.error) == ("pretraining", None, "")
    (again,) = AuditEntry.objects.filter(action="training.retry_retraining")
    assert (again.before, again.after) == (
        {"state": "cancelled", "error": "too early"},
        {"state": "releasing"},
    )
    assert [job.key.split(":", 2)[-1] for job in queued()] == ["pretrain:rgb", "pretrain:dem"]


def test_step_that_is_refused_fails_the_retraining_with_its_sentence(labelled: "Campaign") -> None:
    retraining = start_retraining(labelled, reason="x")
    Scene.objects.filter(modality__name="rgb").update(uri="/nowhere/rgb.tif")
    drive()
    retraining.refresh_from_db()
    assert retraining.state == "failed"
    assert "rgb.tif" in retraining.error
    assert retraining.error == Job.objects.get(function="thawloop.training.jobs.release").error


def test_retraining_that_is_done_cannot_be_retried(labelled: "Campaign") -> None:
    done = Retraining.objects.create(campaign=labelled, number=1, reason="x", state="done")
    with pytest.raises(RetrainingConflict, match="only one that failed can be retried"):
        retry_retraining(done)


def test_step_whose_job_vanished_is_asked_for_again(labelled: "Campaign") -> None:
    retraining = start_retraining(labelled, reason="x")
    Job.objects.all().delete()
    advance_all()
    assert [job.key for job in queued()] == [f"retraining:{retraining.pk}:release"]


def test_gpu_that_is_not_there_is_one_clear_sentence(labelled: "Campaign", settings) -> None:
    settings.THAWLOOP_DEVICE = "cuda"
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0}
    labelled.save()
    retraining = start_retraining(labelled, reason="x")
    drive()
    retraining.refresh_from_db()
    assert retraining.state == "failed"
    assert "THAWLOOP_DEVICE is `cuda`, but this machine offers 0 CUDA devices" in retraining.error


def test_running_training_stops_when_its_retraining_is_cancelled_and_a_retry_resumes_it(labelled: "Campaign") -> None:
    labelled.detector = {**labelled.detector, "pretrain_iterations": 0, "iterations": 1000}
    labelled.save()
    retraining = start_retraining(labelled, reason="x")
    run_inline(queued()[0].pk)  # release
    cancelled = []

    def cancel_at_first_step(share: float, message: str) -> None:
        if not cancelled and "loss" in message:
            cancelled.append(cancel_retraining(retraining, reason="wrong labels"))

    job = run_inline(queued()[0].pk, on_progress=cancel_at_first_step)

    retraining.refresh_from_db()
    assert (job.state, retraining.state, retraining.error) == ("cancelled", "cancelled", "wrong labels")
    assert not labelled.model_versions.exists()
    assert artifact(f"runs/{retraining.runs.get().pk}").exists()  # a retry goes on from here
    retry_retraining(retraining)
    assert [job.key for job in queued()] == [f"retraining:{retraining.pk}:finetune"]
