"""The dataset directory itself, and an ordinary COCO set with 8-bit pictures made from it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from contracts.dataset import annotation_file, chip_folder
from thawloop.campaigns.models import Split
from thawloop.releases.models import Release


def write_dataset(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """A copy of the dataset directory."""
    shutil.copytree(dataset(), target)


def write_coco(release: Release, target: Path, dataset: Callable[[], Path]) -> None:
    """`images/<tile>.png` of the anchor modality and `annotations/instances_<split>.json`."""
    source = dataset()
    anchor = next(item for item in release.definition["modalities"] if item["anchor"])
    (target / "images").mkdir(parents=True)
    (target / "annotations").mkdir()
    for split in Split.values:
        content = json.loads(annotation_file(source, split).read_text())
        for image in content["images"]:
            name = image["file_name"]
            image["file_name"] = str(Path(name).with_suffix(".png"))
            with rasterio.open(chip_folder(source, anchor["name"]) / name) as chip:
                picture = to_picture(chip.read(), anchor["range"])
            picture.save(target / "images" / image["file_name"], optimize=False)
        (target / "annotations" / f"instances_{split}.json").write_text(json.dumps(content) + "\n")
    shutil.copy(source / "README.md", target / "README.md")


def to_picture(array: NDArray[Any], limits: list[float]) -> Image.Image:
    """8-bit picture of a chip [C, H, W]: the range becomes 0-255, no data 0; three bands if there are, else one."""
    low, high = limits
    bands = array[:3] if len(array) >= 3 else array[:1]
    scaled = (bands.astype(np.float64) - low) / (high - low) * 255
    pixels = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
