"""A small generated dataset directory with a known answer: ellipse-like slumps on tundra, in colour and elevation."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from pycocotools import mask as coco_mask
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin
from scipy import ndimage

from ml_backend.detector import DetectorConfig, TrainResult, train

MODALITIES: list[dict[str, Any]] = [
    {"name": "rgb", "bands": ["red", "green", "blue"], "range": [0, 1], "nodata": None},
    {"name": "relative_elevation", "bands": ["relative_elevation"], "range": [-50, 50], "nodata": -9999.0},
]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two torch threads that compete with other processes for two cores wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def quick() -> DetectorConfig:
    """The shortest training that goes through everything."""
    return DetectorConfig(iterations=2, batch_size=2, warmup=1, save_interval=1)


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of two modalities; not to be changed."""
    return make_dataset(tmp_path_factory.mktemp("detector") / "data", train=8, val=3, test=3, size=64)


@pytest.fixture
def own_dataset_dir(tmp_path: Path) -> Path:
    """A tiny dataset that a test may spoil."""
    return make_dataset(tmp_path / "data", train=3, val=2, test=2, size=64, missing=0)


@pytest.fixture(scope="session")
def generate() -> Callable[..., Path]:
    """:func:`make_dataset`, for tests that need another one."""
    return make_dataset


@pytest.fixture(scope="session")
def trained(dataset_dir: Path, quick: DetectorConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A detector after a few steps on :func:`dataset_dir`: it knows next to nothing, but it finds something."""
    config = replace(quick, iterations=20, learning_rate=1e-3, warmup=5, save_interval=20)
    return train(dataset_dir, tmp_path_factory.mktemp("trained"), config, device="cpu")


def make_dataset(
    root: Path,
    *,
    train: int = 12,
    val: int = 4,
    test: int = 4,
    size: int = 128,
    seed: int = 0,
    modalities: tuple[str, ...] = ("rgb", "relative_elevation"),
    missing: float = 0.15,
) -> Path:
    """Write a dataset directory.

    Args:
        root: folder to create.
        train: tiles of the split; so ``val`` and ``test``.
        size: of tiles in pixels.
        seed: of everything.
        modalities: which of :data:`MODALITIES` to write.
        missing: share of tiles without the second modality.

    A fifth of the tiles is empty, a fourth of the slumps has a hole; the first train tile always holds a slump.
    """
    rng = np.random.default_rng(seed)
    used = [m for m in MODALITIES if m["name"] in modalities]
    for modality in used:
        (root / "chips" / modality["name"]).mkdir(parents=True)
    (root / "annotations").mkdir()
    for split, count in {"train": train, "val": val, "test": test}.items():
        images, annotations = [], []
        for index in range(count):
            name = f"{split}_{index:04d}.tif"
            empty = index > 0 and rng.random() < 0.2
            masks = [] if empty else slumps(rng, size)
            chips = {"rgb": rgb_chip(rng, masks, size), "relative_elevation": elevation_chip(rng, masks, size)}
            lacks = index > 0 and rng.random() < missing
            for modality in used:
                if modality["name"] == "rgb" or not lacks:
                    write_chip(root / "chips" / modality["name"] / name, chips[modality["name"]])
            images.append(
                {"id": index + 1, "file_name": name, "width": size, "height": size, "region": f"region-{index % 2}"}
            )
            annotations += [annotation(len(annotations) + i + 1, index + 1, mask) for i, mask in enumerate(masks)]
        coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "RTS"}]}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(coco))
    meta = {
        "name": "synthetic",
        "version": "1",
        "classes": ["RTS"],
        "modalities": used,
        "grid": {"srid": 3413, "pixel_size": 3.0, "tile_size": size, "overlap": 0},
        "provenance": {"generator": "tests/detector/conftest.py", "seed": seed},
    }
    (root / "dataset.json").write_text(json.dumps(meta))
    return root


def slumps(rng: np.random.Generator, size: int) -> list[np.ndarray]:
    """One to three separate wobbly ellipses of 10 to 50 px (in a 128 px tile), some with an island."""
    taken = np.zeros((size, size), dtype=bool)
    masks = []
    y, x = np.mgrid[:size, :size] + 0.5
    for _ in range(rng.integers(1, 4)):
        a, b = rng.uniform(0.05, 0.18, 2) * size
        cx, cy = rng.uniform(0.15, 0.85, 2) * size
        turn = rng.uniform(0, np.pi)
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        angle = np.arctan2(v, u)
        wobble = 1 + 0.12 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.08 * np.sin(5 * angle + rng.uniform(0, 6))
        distance = np.hypot(u / a, v / b) / wobble
        mask = distance <= 1
        if rng.random() < 0.25 and min(a, b) > 0.1 * size:
            mask &= distance > 0.35
        if mask.sum() < 30 or (ndimage.binary_dilation(mask, iterations=3) & taken).any():
            continue
        taken |= mask
        masks.append(mask)
    return masks


def _texture(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap")
    return field / field.std()


def rgb_chip(rng: np.random.Generator, masks: list[np.ndarray], size: int) -> np.ndarray:
    """float32 [3, size, size] in 0..1: greenish tundra, brownish mud."""
    base = np.array([0.30, 0.36, 0.22])[:, None, None] + 0.03 * _texture(rng, size, 6) + rng.normal(0, 0.02)
    mud = np.array([0.46, 0.38, 0.30])[:, None, None] + 0.04 * _texture(rng, size, 1.5)
    floor = np.any(masks, axis=0) if masks else np.zeros((size, size), dtype=bool)
    soft = ndimage.gaussian_filter(floor.astype(float), 0.6)
    image = base * (1 - soft) + mud * soft + rng.normal(0, 0.02, (3, size, size))
    return np.clip(image, 0, 1).astype(np.float32)


def elevation_chip(rng: np.random.Generator, masks: list[np.ndarray], size: int) -> np.ndarray:
    """float32 [1, size, size] in metres: rolling terrain with a bowl in each slump; a nodata corner now and then."""
    relief = 2 * _texture(rng, size, 12)
    for mask in masks:
        depth = ndimage.distance_transform_edt(mask)
        relief = relief - 8 * np.minimum(depth / 4, 1)
    relief = relief + rng.normal(0, 0.3, (size, size))
    if rng.random() < 0.2:
        relief[: size // 6, : size // 6] = np.nan
    return relief[None].astype(np.float32)


def write_chip(file: Path, array: np.ndarray) -> None:
    """Write a chip as GeoTIFF in EPSG:3413."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            file,
            "w",
            driver="GTiff",
            count=len(array),
            height=array.shape[1],
            width=array.shape[2],
            dtype=array.dtype,
            crs="EPSG:3413",
            transform=from_origin(-2_400_000, -500_000, 3, 3),
            nodata=np.nan if array.dtype == np.float32 else None,
        ) as raster:
            raster.write(array)


def annotation(number: int, image: int, mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO annotation in RLE."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(mask.sum()),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
    }
