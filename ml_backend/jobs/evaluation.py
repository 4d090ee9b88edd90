"""Evaluating a retraining's challenger, and the champion, on the same test tiles."""

from typing import Any

from ml_backend.jobs.refusals import DetectorRefused, refusals
from ml_backend.jobs.resources import dataset_of, ready_device
from thawloop.core.jobs import JobContext, job
from thawloop.core.storage import artifact
from thawloop.registry.models import ModelVersion
from thawloop.training.models import Evaluation as Measured
from thawloop.training.models import Retraining
from thawloop.training.services import GAIN_OVER, finish_evaluation, missing_evaluations, step_failed


@job(queue="gpu", on_failed=step_failed)
def evaluate(job: JobContext) -> dict[str, Any]:
    """Evaluate the model versions that have not been evaluated on the release of a retraining: args `retraining`.

    The second is compared with the first tile by tile, so that the gate has an interval for the gain.

    A champion that cannot be evaluated there (it does not know a class that was added since) must not stop the
    challenger: the reason is recorded, and the gate leaves the decision to a person.
    """
    retraining = Retraining.objects.select_related("release", "campaign").get(pk=job.args["retraining"])
    dataset = dataset_of(job, retraining)
    device = ready_device()
    measured: dict[str, Any] = {}
    # Queried again each time: the champion may change while a version is being evaluated.
    while missing := missing_evaluations(retraining):
        version, done, total = missing[0], len(measured), len(measured) + len(missing)
        job.check_cancelled()

        def report(share: float, text: str, done: int = done, total: int = total) -> None:
            job.check_cancelled()
            job.progress((done + share) / total, text)

        metrics = _measure(job, retraining, version, str(dataset), device, report)
        metrics[GAIN_OVER] = _gain_over(job, retraining, metrics)
        finish_evaluation(retraining, version, metrics)
        measured[version.name] = {name: value for name, value in metrics.items() if name != "per_image"}
    return measured


def _measure(
    job: JobContext, retraining: Retraining, version: ModelVersion, dataset: str, device: str, report: Any
) -> dict[str, Any]:
    from ml_backend.detector import evaluate as evaluate_checkpoint

    try:
        with refusals(job):
            return evaluate_checkpoint(
                dataset, artifact(version.path), split="test", device=device, progress=report
            ).to_json()
    except DetectorRefused as refusal:
        if version.retraining_id == retraining.pk:
            raise
        job.log.warning("the champion cannot be evaluated", model=version.name, why=str(refusal))
        return {"error": str(refusal)}


def _gain_over(job: JobContext, retraining: Retraining, metrics: dict[str, Any]) -> dict[str, Any]:
    """AP50 minus that of each model evaluated on these tiles before, with its interval, where they are comparable."""
    from ml_backend.detector import DatasetError, Evaluation, compare_evaluations

    gains = {}
    rivals = Measured.objects.filter(release=retraining.release, split="test").select_related("model_version")
    for rival in rivals if "error" not in metrics else ():
        if "per_image" not in rival.metrics:
            continue
        try:
            found = compare_evaluations(Evaluation.from_json(rival.metrics), Evaluation.from_json(metrics))
        except DatasetError as error:  # a unimodal model is not evaluated on tiles that lack its modality
            job.log.info("two models cannot be compared tile by tile", model=rival.model_version.name, why=str(error))
            continue
        gains[rival.model_version.name] = found["ap50"].to_json()
    return gains
