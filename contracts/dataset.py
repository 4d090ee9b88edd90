"""Where things lie in a dataset directory: what a release writes, what anybody can bring (docs/architecture.md)."""

from pathlib import Path
from typing import Literal, get_args

DATASET_FILE = "dataset.json"
ANNOTATIONS_FOLDER = "annotations"
CHIPS_FOLDER = "chips"
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)  # in the order in which a detector gets to see them


def annotation_file(folder: Path, split: str) -> Path:
    """The COCO file of a split."""
    return folder / ANNOTATIONS_FOLDER / f"{split}.json"


def chip_folder(folder: Path, modality: str) -> Path:
    """Where the chips of a modality lie."""
    return folder / CHIPS_FOLDER / modality
