"""A dataset directory from a campaign file: every label it names is truth, nobody annotates, no model is trained."""

import json
from collections.abc import Callable
from pathlib import Path

from contracts.dataset import DATASET_FILE, SPLITS, annotation_file, chip_folder
from thawloop.campaigns.models import Campaign, Split
from thawloop.core.errors import Refused
from thawloop.releases.services import export, freeze_release
from thawloop.setup.services import set_up_campaign
from thawloop.setup.spec import CampaignSpec, LabelSpec

Report = Callable[[float, str], None]


def write_campaign_dataset(
    spec: CampaignSpec, out: Path, *, force: bool = False, report: Report
) -> dict[str, dict[str, int]]:
    """Set a campaign up, take all its labels in as truth, freeze a release and write its dataset directory.

    Args:
        spec: What the campaign file says.
        out: The folder to write.
        force: Replace a dataset that is there.
        report: Called with a fraction 0-1 and a message.

    Returns:
        Per split: tiles, empty tiles, instances, and tiles that have each of the modalities.

    Raises:
        Refused: the campaign exists in this database, something in its file cannot be done, or `out` cannot be written.
    """
    if Campaign.objects.filter(name=spec.name).exists():
        raise Refused(
            f"Campaign {spec.name} exists in this database, with labels of its own: export one of its releases "
            f"(`manage.py export latest --campaign {spec.name} --format dataset --out DIR`), or unset DATABASE_URL to "
            "make the dataset apart from it."
        )
    report(0.0, "rasters, tiles and labels")
    made = set_up_campaign(all_truth(spec))
    report(0.2, "release")
    release = freeze_release(made.campaign, notes="All labels of the campaign file as truth.")
    export(release, "dataset", out, force=force, progress=lambda share, message: report(0.2 + 0.8 * share, message))
    return count_dataset(out)


def all_truth(spec: CampaignSpec) -> CampaignSpec:
    """The same campaign without annotators: label files that were held back are truth in their splits, too.

    Raises:
        Refused: the file names no labels, or none in one of the train and test splits.
    """
    found: dict[LabelSpec, set[str]] = {}
    for labels in spec.labels:
        for file in labels.files:
            one = labels.model_copy(update={"files": (file,), "role": "truth", "splits": ()})
            found.setdefault(one, set()).update(labels.splits)
    covered = set().union(*found.values())
    for split in (Split.TRAIN, Split.TEST):
        if split not in covered:
            raise Refused(f"{spec.source}: no label file counts in the {split} split: add a `[[labels]]` table for it.")
    truth = tuple(
        labels.model_copy(update={"splits": tuple(split for split in SPLITS if split in splits)})
        for labels, splits in found.items()
    )
    return spec.model_copy(update={"labels": truth})


def count_dataset(folder: Path) -> dict[str, dict[str, int]]:
    """What a dataset directory holds, per split."""
    modalities = [entry["name"] for entry in json.loads((folder / DATASET_FILE).read_text())["modalities"]]
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        content = json.loads(annotation_file(folder, split).read_text())
        names = [image["file_name"] for image in content["images"]]
        with_objects = {entry["image_id"] for entry in content["annotations"]}
        have = {name: sum((chip_folder(folder, name) / tile).exists() for tile in names) for name in modalities}
        counts[split] = {
            "tiles": len(names),
            "empty": len(names) - len(with_objects),
            "instances": sum(not annotation["ignore"] for annotation in content["annotations"]),
            **have,
        }
    return counts
