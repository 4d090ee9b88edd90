"""Changing the files of a dataset or checkpoint, as people and disks do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from pycocotools import mask as coco_mask
from rasterio.windows import Window


def edit_json(file: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def crop_tiles(dataset: Path, size_of: Callable[[str], tuple[int, int]]) -> None:
    """Crop every tile of a dataset, and what is annotated on it, to the (height, width) that its name gets."""
    for file in dataset.glob("chips/*/*.tif"):
        height, width = size_of(file.name)
        with rasterio.open(file) as raster:
            profile, array = raster.profile, raster.read(window=Window(0, 0, width, height))
        with rasterio.open(file, "w", **{**profile, "height": height, "width": width}) as raster:
            raster.write(array)
    for file in dataset.glob("annotations/*.json"):
        data = json.loads(file.read_text())
        for image in data["images"]:
            image["height"], image["width"] = size_of(image["file_name"])
        names = {image["id"]: image["file_name"] for image in data["images"]}
        kept = []
        for entry in data["annotations"]:
            height, width = size_of(names[entry["image_id"]])
            rle = entry["segmentation"]
            mask = coco_mask.decode({**rle, "counts": rle["counts"].encode()})[:height, :width]
            if mask.any():
                cropped = coco_mask.encode(np.asfortranarray(mask))
                kept.append({**entry, "segmentation": {"size": [height, width], "counts": cropped["counts"].decode()}})
        file.write_text(json.dumps({**data, "annotations": kept}))
