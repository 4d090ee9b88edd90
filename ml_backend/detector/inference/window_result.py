"""The prediction of one window of a tile, and its serialisation as numpy arrays without pickle."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_backend.detector.inference.instances import DetectedInstance
from ml_backend.detector.inference.windows import Window
from ml_backend.detector.masks import FloatArray


@dataclass(frozen=True, eq=False)
class WindowResult:
    """The prediction of one window.

    Attributes:
        window: of the tile.
        instances: by decreasing score, in the tile's pixels.
        embedding: float32 [D].
        weight: of the embedding: the number of the window's pixels with data.
        seconds: its share of the computing time.
    """

    window: Window
    instances: list[DetectedInstance]
    embedding: FloatArray
    weight: int
    seconds: float

    def to_bytes(self) -> bytes:
        """Compressed arrays; masks have one bit per pixel."""
        found = self.instances
        scores = [(i.score, i.mask_entropy, i.class_entropy) for i in found]
        arrays: dict[str, Any] = {
            "window": np.array([self.window.left, self.window.top, self.window.right, self.window.bottom]),
            "embedding": self.embedding,
            "cost": np.array([self.weight, self.seconds], dtype=np.float64),
            "boxes": np.array([i.box for i in found], dtype=np.int64).reshape(-1, 4),
            "masks": np.packbits(np.concatenate([np.zeros(0, bool), *(i.mask.ravel() for i in found)])),
            "labels": np.array([(i.label, i.on_data) for i in found], dtype=np.int64).reshape(-1, 2),
            "scores": np.array(scores, dtype=np.float64).reshape(-1, 3),
            "stage_scores": np.array([i.stage_scores for i in found], dtype=np.float32),
            "stage_boxes": np.array([i.stage_boxes for i in found], dtype=np.float32),
        }
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> WindowResult:
        """The inverse of :meth:`to_bytes`.

        Raises:
            ValueError: the bytes are damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"the result of a window is damaged ({error})") from error
        sizes = [(bottom - top, right - left) for left, top, right, bottom in found["boxes"].tolist()]
        areas = [height * width for height, width in sizes]
        bits = np.unpackbits(found["masks"], count=sum(areas)).astype(bool)
        masks = np.split(bits, np.cumsum(areas)[:-1]) if areas else []
        instances = [
            DetectedInstance(
                left=int(found["boxes"][i, 0]),
                top=int(found["boxes"][i, 1]),
                mask=mask.reshape(sizes[i]),
                label=int(found["labels"][i, 0]),
                score=float(found["scores"][i, 0]),
                stage_scores=found["stage_scores"][i],
                stage_boxes=found["stage_boxes"][i],
                mask_entropy=float(found["scores"][i, 1]),
                class_entropy=float(found["scores"][i, 2]),
                on_data=bool(found["labels"][i, 1]),
            )
            for i, mask in enumerate(masks)
        ]
        window = Window(*map(int, found["window"]))
        return cls(window, instances, found["embedding"], int(found["cost"][0]), float(found["cost"][1]))
