"""The numbers of a run: read from the database, written to summary.json, shown as a table."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from labeling.models import AcquisitionBatch, AnnotationTask
from thawloop.campaigns.models import Campaign
from thawloop.registry.selectors import champion
from thawloop.training.models import Retraining
from thawloop.training.selectors import LearningPoint, learning_curve


@dataclass(frozen=True)
class Round:
    """One turn of the loop.

    Attributes:
        round: Its number.
        labels: Labels that its model learned from.
        ap50, ap30: Of its model on the test tiles; None where they could not be measured.
        correction_iou: How little annotators had to change what the model before had drawn; None in the first round.
        acquired, random: Tiles of its batch, by arm.
        seconds: From choosing the tiles to the new model's predictions.
    """

    round: int
    labels: int
    ap50: float | None
    ap30: float | None
    correction_iou: float | None
    acquired: int
    random: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What the guided run leaves in summary.json."""

    seconds: float
    rounds: list[Round]
    release: str
    model_version: str
    urls: dict[str, str]

    def write(self, path: Path) -> None:
        """Write it, in place only when complete."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)


def rounds_of(campaign: Campaign) -> list[Round]:
    """All rounds of a campaign, those of earlier runs too."""
    points = {point.number: point for point in learning_curve(campaign)}
    done = campaign.retrainings.filter(state=Retraining.State.DONE, number__in=points).order_by("number")
    return [_round(number, points[row.number], row) for number, row in enumerate(done, 1)]


def champion_of(campaign: Campaign) -> tuple[str, str]:
    """Name of the champion and the artifact name of the release it was trained on."""
    best = champion(campaign)
    return (best.name, best.release.path if best.release else "") if best else ("", "")


def table_of(rounds: list[dict[str, Any]]) -> Table:
    """The rounds as people want to read them."""
    table = Table(title="What each round brought", title_justify="left")
    for column in ("round", "tiles (active + random)", "labels", "AP50", "AP30", "correction IoU", "seconds"):
        table.add_column(column, justify="right")
    for row in rounds:
        table.add_row(
            str(row["round"]),
            f"{row['acquired']} + {row['random']}",
            str(row["labels"]),
            *(_figure(row[name]) for name in ("ap50", "ap30", "correction_iou")),
            f"{row['seconds']:.0f}",
        )
    return table


def _round(number: int, point: LearningPoint, row: Retraining) -> Round:
    batch = AcquisitionBatch.objects.filter(campaign=row.campaign_id, created__lt=row.created).first()
    arms = list(batch.tasks.values_list("arm", flat=True)) if batch else []
    begin = batch.created if batch else row.created
    return Round(
        round=number,
        labels=point.labels,
        ap50=point.ap50,
        ap30=point.ap30,
        correction_iou=point.correction_iou,
        acquired=arms.count(AnnotationTask.Arm.ACQUIRED),
        random=arms.count(AnnotationTask.Arm.RANDOM),
        seconds=round((row.finished - begin).total_seconds(), 1) if row.finished else 0.0,
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
