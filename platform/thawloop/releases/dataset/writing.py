"""Write a release's chips and annotations into a folder, one tile at a time."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.dataset import ANNOTATIONS_FOLDER, CHIPS_FOLDER, DATASET_FILE, annotation_file, chip_folder
from labeling.models import LabelRevision
from thawloop.campaigns.models import Split
from thawloop.catalog.chips import Chip, ChipReader, write_chip
from thawloop.catalog.geometry import geodesic_area, to_pixels, to_shapely
from thawloop.catalog.models import Modality, Tile
from thawloop.core.bulk import without_bulk
from thawloop.releases.dataset.card import data_card
from thawloop.releases.dataset.coco import TileLabel, annotation_of
from thawloop.releases.dataset.manifest import digest, write_manifest
from thawloop.releases.dataset.statistics import BandStatistics
from thawloop.releases.errors import ReleaseRefused
from thawloop.releases.membership import frozen_revisions_on, ignored_parts
from thawloop.releases.models import Release, ReleaseTile
from thawloop.releases.separation import part_name

BATCH = 128
WRITERS = 2
MAX_PENDING = 32

Progress = Callable[[float, str], None]


@dataclass
class DatasetWriter:
    """What accumulates while tiles are written."""

    release: Release
    folder: Path
    modalities: list[Modality]
    anchor: str
    statistics: dict[str, BandStatistics] = field(init=False)
    images: dict[str, list[dict[str, Any]]] = field(init=False)
    annotations: dict[str, list[dict[str, Any]]] = field(init=False)
    coverage: dict[str, int] = field(init=False)
    digests: dict[str, dict[str, Any]] = field(default_factory=dict)
    without_imagery: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.statistics = {item.name: BandStatistics(len(item.bands)) for item in self.modalities}
        self.images = {split: [] for split in Split.values}
        self.annotations = {split: [] for split in Split.values}
        self.coverage = {item.name: 0 for item in self.modalities}
        self.categories = {name: number for number, name in enumerate(self.release.definition["classes"], 1)}
        self.ignored = ignored_parts(self.release)

    def write(self, progress: Progress) -> str:
        """Write everything and return the manifest's checksum.

        Raises:
            ReleaseRefused: No tile of train or of test has imagery.
        """
        self._write_tiles(progress)
        for split in (Split.TRAIN, Split.TEST):
            if not self.images[split]:
                raise ReleaseRefused(
                    f"None of {self.release}'s {split} tiles has imagery of {self.anchor}: register its scenes with "
                    f"`ingest FILE --modality {self.anchor} --date D`."
                )
        progress(0.98, "annotations and manifest")
        self._write_annotations()
        dataset = self._dataset()
        _write_json(self.folder / DATASET_FILE, dataset, indent=1)
        counts = {
            split: {"tiles": len(self.images[split]), "annotations": len(self.annotations[split])}
            for split in Split.values
        }
        (self.folder / "README.md").write_text(data_card(dataset, counts, self._per_class()))
        return write_manifest(self.folder, self.digests)

    def _write_tiles(self, progress: Progress) -> None:
        total = self.release.release_tiles.count()
        pending: deque[Future[tuple[str, dict[str, Any]]]] = deque()
        for item in self.modalities:
            chip_folder(self.folder, item.name).mkdir(parents=True)
        with ThreadPoolExecutor(WRITERS, "chip-writer") as pool, ChipReader(self.modalities) as reader:
            for number, (member, labels) in enumerate(self._members(), 1):
                chip = reader.read(member.tile)
                if self._take(member, chip, labels):
                    for name in chip.arrays:
                        pending.append(pool.submit(self._write_chip, chip, name))
                while len(pending) > MAX_PENDING:
                    self._written(pending.popleft())
                progress(0.97 * number / total, f"{number} of {total} tiles")
            while pending:
                self._written(pending.popleft())

    def _members(self) -> Iterator[tuple[ReleaseTile, list[LabelRevision]]]:
        """Tiles in the order of their keys, each with its labels in the order of their ids."""
        rows = self.release.release_tiles.select_related("tile__grid", "tile__region").order_by("tile__key")
        rows = without_bulk(rows, keep=("tile__geometry",))
        ids = list(rows.values_list("pk", flat=True))
        for start in range(0, len(ids), BATCH):
            part = list(rows.filter(pk__in=ids[start : start + BATCH]))
            on_tiles = frozen_revisions_on(self.release, {row.tile_id: (row.split, row.annotation_id) for row in part})
            wanted = set().union(*on_tiles.values()) if on_tiles else set()
            revisions = LabelRevision.objects.select_related("landform_class").in_bulk(wanted)
            for row in part:
                found = [revisions[pk] for pk in on_tiles.get(row.tile_id, ())]
                yield row, sorted(found, key=lambda revision: (str(revision.label_id), revision.number))

    def _take(self, member: ReleaseTile, chip: Chip, labels: list[LabelRevision]) -> bool:
        """Count a tile in, with its annotations; False for a tile without the anchor's pixels."""
        tile = member.tile
        if self.anchor not in chip.arrays:
            self.without_imagery.append(tile.key)
            return False
        size = tile.grid.tile_size
        image = {
            "id": sum(map(len, self.images.values())) + 1,
            "file_name": f"{tile.key}.tif",
            "width": size,
            "height": size,
            "region": tile.region.name,
        }
        self.images[member.split].append(image)
        for revision in labels:
            annotation = annotation_of(self._tile_label(tile, revision), size=size)
            if annotation is not None:
                self.annotations[member.split].append({"image_id": image["id"], **annotation})
        for name, array in chip.arrays.items():
            self.coverage[name] += 1
            if member.split == Split.TRAIN:
                self.statistics[name].add(array, chip.valid[name])
        return True

    def _tile_label(self, tile: Tile, revision: LabelRevision) -> TileLabel:
        shape = to_shapely(revision.geometry)
        return TileLabel(
            shape=to_pixels(tile, shape),
            category=self.categories[revision.landform_class.name],
            label=str(revision.label_id),
            revision=revision.number,
            area_m2=geodesic_area(shape),
            ignored=part_name(tile.key, str(revision.label_id)) in self.ignored,
        )

    def _write_chip(self, chip: Chip, name: str) -> tuple[str, dict[str, Any]]:
        relative = f"{CHIPS_FOLDER}/{name}/{chip.key}.tif"
        path = self.folder / relative
        write_chip(path, chip.arrays[name], chip.valid[name], chip.transform, chip.crs)
        return relative, digest(path)

    def _written(self, future: Future[tuple[str, dict[str, Any]]]) -> None:
        relative, found = future.result()
        self.digests[relative] = found

    def _write_annotations(self) -> None:
        (self.folder / ANNOTATIONS_FOLDER).mkdir()
        categories = [{"id": number, "name": name} for name, number in self.categories.items()]
        number = 0
        for split in Split.values:
            numbered = []
            for annotation in self.annotations[split]:
                number += 1
                numbered.append({"id": number, **annotation})
            content = {
                "info": {"description": f"{self.release} {split}", "version": self.release.version},
                "images": self.images[split],
                "annotations": numbered,
                "categories": categories,
            }
            _write_json(annotation_file(self.folder, split), content)

    def _dataset(self) -> dict[str, Any]:
        definition = self.release.definition
        modalities = []
        for item in definition["modalities"]:
            mean, deviation = self.statistics[item["name"]].summary(*item["range"])
            modalities.append(item | {"mean": mean, "std": deviation})
        provenance = definition["provenance"] | {
            "frozen": self.release.created.isoformat(),
            "coverage": self.coverage,
            "without_imagery": self.without_imagery,
        }
        return definition | {"modalities": modalities, "provenance": provenance}

    def _per_class(self) -> dict[str, int]:
        numbers = [row["category_id"] for rows in self.annotations.values() for row in rows]
        return {name: numbers.count(number) for name, number in self.categories.items()}


def _write_json(path: Path, content: dict[str, Any], *, indent: int | None = None) -> None:
    # Sorted: PostgreSQL gives a definition's keys back in another order than they were frozen in.
    path.write_text(json.dumps(content, allow_nan=False, sort_keys=True, indent=indent) + "\n")
