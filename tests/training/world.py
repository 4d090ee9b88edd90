"""Builders for the training room's tests."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.contrib.gis.geos import MultiPolygon, Polygon
from django.db.models import Model

from labeling.models import Annotation, AnnotationTask, Label, LabelRevision
from tests.releases.site import PERIOD, Site, write_labels
from thawloop.campaigns.models import Campaign, CampaignRegion, LandformClass
from thawloop.catalog.models import Region, Tile, TileGrid
from thawloop.core.jobs import run_inline
from thawloop.core.models import Job
from thawloop.core.storage import artifact
from thawloop.registry.models import ModelAlias, ModelVersion, Promotion
from thawloop.releases.models import Release
from thawloop.releases.services import freeze_release, import_labels
from thawloop.training.architecture import Architecture
from thawloop.training.models import Evaluation, Retraining, RetrainPolicy, TrainingRun

TINY = {"iterations": 2, "pretrain_iterations": 2, "batch_size": 2, "empty_share": 0.0}
TRAIN_TILES, TEST_TILES = 12, 6
NEIGHBOUR = "next-door"
NEWEST = 10**6  # a primary key: of what is listed newest first, the neighbour's comes first as well


def make_neighbour() -> list[Model]:
    """Another campaign, far away, with a row of everything and values that nobody else has; returns the rows.

    Whoever forgets to ask for one campaign's rows finds these before any made later.
    """
    landform = LandformClass.objects.get_or_create(name="RTS")[0]
    grid = TileGrid.objects.create(name=NEIGHBOUR, srid=3413, pixel_size=10, tile_size=64)
    campaign = Campaign.objects.create(name=NEIGHBOUR, title="Next door", grid=grid, **PERIOD)
    campaign.classes.add(landform)
    places: list[Tile] = []
    for col, split in enumerate(("train", "test")):
        shape = Polygon.from_bbox((100 + col, 70, 101 + col, 71))
        region = Region.objects.create(name=f"{NEIGHBOUR}-{split}", geometry=MultiPolygon(shape))
        CampaignRegion.objects.create(campaign=campaign, region=region, split=split)
        places.append(
            Tile.objects.create(
                grid=grid, col=col, row=0, region=region, key=f"{NEIGHBOUR}_{split}", geometry=shape, **PERIOD
            )
        )
    task = AnnotationTask.objects.create(campaign=campaign, tile=places[0], state=AnnotationTask.State.SUBMITTED)
    annotation = Annotation.objects.create(
        task=task,
        ls_annotation_id=1,
        ls_updated_at=datetime(2021, 10, 1, tzinfo=UTC),
        kind=Annotation.Kind.SUBMITTED,
        correction_iou=0.01,
    )
    label = Label.objects.create(campaign=campaign, tile=places[0], origin="ls:1:r0")
    said = {"author_name": "a neighbour", "reason": "drawn", "annotation": annotation, "landform_class": landform}
    label.current = LabelRevision.objects.create(
        label=label, number=1, geometry=MultiPolygon(places[0].geometry), **said
    )
    label.save()
    switched_off = policy(
        campaign, enabled=False, min_new_tiles=1000, min_new_labels=1000, cooldown_minutes=10**6, gate_min_gain=0.9
    )
    release = Release.objects.create(
        pk=NEWEST, campaign=campaign, version="9.9.9", definition={}, counts={"tiles": {"train": 999, "test": 999}}
    )
    retraining = Retraining.objects.create(
        pk=NEWEST, campaign=campaign, number=999, state="done", reason="theirs", release=release, promoted=True
    )
    run = TrainingRun.objects.create(
        retraining=retraining,
        stage=TrainingRun.Stage.FINETUNE,
        config={},
        init={"checkpoint": "models/nowhere"},
        seed=1,
        path="models/nowhere",
    )
    version = ModelVersion.objects.create(
        pk=NEWEST,
        campaign=campaign,
        name=f"{NEIGHBOUR}-v999",
        number=999,
        release=release,
        retraining=retraining,
        path="models/nowhere",
    )
    alias = ModelAlias.objects.create(campaign=campaign, alias="champion", model_version=version)
    promotion = Promotion.objects.create(pk=NEWEST, campaign=campaign, kind="gate", champion=version, reason="theirs")
    evaluations = [
        Evaluation.objects.create(model_version=version, release=release, split=split, ap=ap50, ap50=ap50, ap30=ap50)
        for split, ap50 in (("test", 0.99), ("val", 0.98))
    ]
    labelled = [campaign, *places, task, annotation, label]
    return [*labelled, switched_off, release, retraining, run, version, alias, promotion, *evaluations]


def as_stored(rows: list[Model]) -> list[dict[str, Any]]:
    """What the database holds of rows, as it is now."""
    return [type(row)._default_manager.filter(pk=row.pk).values().get() for row in rows]


def label_everything(campaign: Campaign, data_root: Path) -> None:
    """Import squares on four train and two test tiles; all other tiles are known to be empty."""
    site = Site()
    places = [(0, 0), (1, 1), (2, 2), (3, 0), (5, 0), (6, 2)]
    import_labels(campaign, write_labels(data_root / "truth.geojson", *(site.square(*place) for place in places)),
                  coverage="regions")  # fmt: skip
    campaign.detector = TINY
    campaign.save()


def policy(campaign: Campaign, **values: Any) -> RetrainPolicy:
    """The campaign's policy."""
    return RetrainPolicy.objects.update_or_create(campaign=campaign, defaults=values)[0]


def write_checkpoint(name: str, architecture: Architecture, weights: bytes = b"weights") -> dict[str, Any]:
    """Files of a checkpoint with a true card, whose weights nobody will load; returns the card."""
    card = {
        "format": "thawloop-detector/1",
        "architecture": architecture.version,
        "config": {
            "size": architecture.size,
            "fusion": architecture.fusion or "residual_cross_attention",
            "modalities": architecture.names,
            "anchor": architecture.anchor,
        },
        "classes": list(architecture.classes),
        "modalities": [{"name": name, "bands": list(bands)} for name, bands in architecture.modalities],
        "anchor": architecture.anchor,
        "weights": {"file": "model.safetensors", "sha256": hashlib.sha256(weights).hexdigest()},
    }
    folder = artifact(name)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "model.json").write_text(json.dumps(card))
    return card


def make_model(
    campaign: Campaign, number: int = 1, *, release: Release | None = None, ap50: float | None = None
) -> ModelVersion:
    """A registered model version with its files; with `ap50`, measured on the release's test tiles."""
    name = f"{campaign.name}-v{number}"
    path = f"models/{campaign.name}/{name}"
    card = write_checkpoint(path, Architecture.wanted(campaign), name.encode())
    version = ModelVersion.objects.create(
        campaign=campaign,
        name=name,
        number=number,
        release=release,
        path=path,
        checksum=card["weights"]["sha256"],
        card=card,
    )
    if release is not None and ap50 is not None:
        Evaluation.objects.create(model_version=version, release=release, ap=ap50 / 2, ap50=ap50, ap30=ap50)
    return version


def made_by(retraining: Retraining, ap50: float | None, **metrics: Any) -> ModelVersion:
    """Let a retraining have made a model that was measured so, without training anything."""
    if retraining.release is None:
        retraining.release = freeze_release(retraining.campaign)
        retraining.save()
    version = make_model(retraining.campaign, retraining.number, release=retraining.release)
    ModelVersion.objects.filter(pk=version.pk).update(retraining=retraining)
    Evaluation.objects.create(
        model_version=version, release=retraining.release, ap=ap50, ap50=ap50, ap30=ap50, metrics=metrics
    )
    return ModelVersion.objects.get(pk=version.pk)


def queued() -> list[Job]:
    """Jobs that wait and are this room's to do (Label Studio's are not)."""
    return list(
        Job.objects.filter(state=Job.State.QUEUED).exclude(function__startswith="labeling.").order_by("created")
    )


def drive(*, steps: int = 50) -> list[str]:
    """Run jobs in this process until none waits, as workers would; returns what was run, in order."""
    done = []
    while (jobs := queued()) and len(done) < steps:
        job = run_inline(jobs[0].pk)
        done.append(job.key.split(":", 2)[-1])
    return done


def fresh_network(campaign: Campaign, number: int = 1) -> ModelVersion:
    """A registered version of a real network on the campaign's modalities, with the weights a training begins with."""
    import torch

    from ml_backend.detector.checkpoint import write_checkpoint as write_network
    from ml_backend.detector.config import DetectorConfig
    from ml_backend.detector.dataset import ModalitySpec
    from ml_backend.detector.model import build_model

    wanted = Architecture.wanted(campaign)
    config = DetectorConfig(modalities=tuple(wanted.names), anchor=wanted.anchor)
    specs = tuple(
        ModalitySpec(name, bands, mean=(128.0,) * len(bands), std=(64.0,) * len(bands))
        for name, bands in wanted.modalities
    )
    torch.manual_seed(0)
    weights = build_model(config, specs, len(wanted.classes)).state_dict()
    name = f"{campaign.name}-v{number}"
    path = f"models/{campaign.name}/{name}"
    card = {
        "architecture": wanted.version,
        "config": config.to_json(),
        "classes": list(wanted.classes),
        "modalities": [spec.to_json() for spec in specs],
        "anchor": wanted.anchor,
    }
    full = write_network(artifact(path), weights, card).card
    return ModelVersion.objects.create(
        campaign=campaign, name=name, number=number, path=path, checksum=full["weights"]["sha256"], card=dict(full)
    )
