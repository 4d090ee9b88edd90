"""The dataset directory: complete, exact, reproducible, and readable by those it is made for."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pycocotools.coco import COCO
from pytest_django import Settings
from shapely.geometry import box

from tests.releases.site import SIZE, Site, annotate, modality, tiles
from thawloop.campaigns.models import Campaign
from thawloop.catalog.chips import read_chip
from thawloop.catalog.models import Modality, Scene
from thawloop.core.errors import Refused
from thawloop.core.jobs import enqueue, run_inline
from thawloop.core.storage import artifact
from thawloop.releases.dataset.coco import TileLabel, annotation_of
from thawloop.releases.dataset.statistics import BandStatistics
from thawloop.releases.errors import ReleaseRefused
from thawloop.releases.models import Release
from thawloop.releases.services import freeze_release, import_labels, materialise, verify

Write = Callable[..., Path]
RING = [
    [(20.0, 20.0), (44.0, 20.0), (44.0, 44.0), (20.0, 44.0)],
    [(28.0, 28.0), (36.0, 28.0), (36.0, 36.0), (28.0, 36.0)],
]


@pytest.fixture
def release(campaign: Campaign, site: Site, label_file: Write) -> Release:
    """Six test tiles with a square, a ring and a sliver; two annotated train tiles, one of them empty."""
    sliver = site.on_tile(6, 0, [(0, 0), (3, 0), (3, 2), (0, 2)])
    path = label_file(site.square(5, 0), site.on_tile(5, 1, *RING), sliver)
    import_labels(campaign, path, splits=["test"], coverage="regions")
    first, second, *_ = tiles(campaign, "train")
    annotate(campaign, first, [[(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]])
    annotate(campaign, second)
    return freeze_release(campaign)


def coco(folder: Path, split: str) -> dict:
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def test_directory_follows_the_contract(release: Release) -> None:
    heard: dict[str, float] = {}
    folder = materialise(release, progress=lambda fraction, message: heard.update({message: fraction}))

    assert folder == artifact("releases/site/1.0.0")
    assert {path.name for path in folder.iterdir()} == {
        "annotations",
        "chips",
        "dataset.json",
        "manifest.json",
        "README.md",
    }
    dataset = json.loads((folder / "dataset.json").read_text())
    assert (dataset["name"], dataset["version"], dataset["classes"]) == ("site", "1.0.0", ["RTS"])
    assert dataset["grid"] == {"srid": 3413, "pixel_size": 3.0, "tile_size": 64, "overlap": 0}
    rgb, dem = dataset["modalities"]
    assert (rgb["name"], rgb["bands"], rgb["range"], rgb["nodata"], rgb["anchor"]) == (
        "rgb",
        ["red", "green", "blue"],
        [0.0, 255.0],
        None,
        True,
    )
    assert (dem["name"], dem["anchor"], len(dem["mean"])) == ("dem", False, 1)
    assert len(list((folder / "chips" / "rgb").iterdir())) == 8
    # The DEM covers two columns of the train region and nothing of the test region.
    assert len(list((folder / "chips" / "dem").iterdir())) == 2
    assert release.state == Release.State.READY
    assert release.manifest_checksum == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    done = [f"{number} of 8 tiles" for number in range(1, 9)]
    assert list(heard) == [*done, "annotations and manifest", "done"]
    assert list(heard.values()) == sorted(heard.values())
    assert heard["done"] == 1.0
    card = (folder / "README.md").read_text()
    assert "licence: CC0" in card
    assert "labels.geojson" in card


def test_chips_are_what_the_catalog_reads(release: Release) -> None:
    folder = materialise(release)
    tile = tiles(release.campaign, "train")[0]
    expected = read_chip(tile, [modality("rgb")])

    with rasterio.open(folder / "chips" / "rgb" / f"{tile.key}.tif") as chip:
        assert chip.crs.to_epsg() == 3413
        assert chip.transform == expected.transform
        assert np.isnan(chip.nodata)
        np.testing.assert_array_equal(chip.read(), expected.arrays["rgb"])


def test_statistics_are_those_of_the_valid_train_pixels(release: Release) -> None:
    folder = materialise(release)
    names = [image["file_name"] for image in coco(folder, "train")["images"]]
    stack = []
    for name in names:
        with rasterio.open(folder / "chips" / "rgb" / name) as chip:
            stack.append(chip.read().astype(float).reshape(3, -1))
    pixels = np.concatenate(stack, axis=1)

    rgb = json.loads((folder / "dataset.json").read_text())["modalities"][0]

    np.testing.assert_allclose(rgb["mean"], np.nanmean(pixels, axis=1), rtol=1e-6)
    np.testing.assert_allclose(rgb["std"], np.nanstd(pixels, axis=1), rtol=1e-6)


def test_statistics_of_a_band_without_pixels_and_of_a_constant_one_follow_from_its_range() -> None:
    found = BandStatistics(1)
    assert found.summary(-1.0, 2.0) == ([0.5], [pytest.approx(3 / 12**0.5)])  # as if every value were as likely
    found.add(np.full((1, 2, 2), 0.25, np.float32), np.ones((2, 2), bool))
    assert found.summary(-1.0, 2.0) == ([0.25], [pytest.approx(3e-6)])


def test_annotations_are_in_tile_pixels(release: Release) -> None:
    folder = materialise(release)

    (drawn,) = coco(folder, "train")["annotations"]
    assert drawn["bbox"] == pytest.approx([10, 10, 20, 20], abs=0.01)
    assert drawn["area"] == pytest.approx(400, abs=0.2)
    assert drawn["area_m2"] == pytest.approx(400 * 9, rel=0.05)
    assert drawn["category_id"] == 1
    assert (drawn["iscrowd"], drawn["ignore"], drawn["revision"], drawn["fraction"]) == (0, 0, 1, 1.0)
    sliver = next(row for row in coco(folder, "test")["annotations"] if row["area"] < 10)
    assert sliver["ignore"] == 1


def test_the_smallest_fragment_is_kept_and_flagged() -> None:
    row = annotation_of(TileLabel(box(-1, 10, 0.5, 11), 1, "a", 1, 13.5), size=SIZE)
    assert row is not None
    assert (row["area"], row["ignore"], row["iscrowd"]) == (0.5, 1, 0)
    assert row["fraction"] == pytest.approx(1 / 3, abs=1e-6)
    assert annotation_of(TileLabel(box(-1, 10, 0, 11), 1, "a", 1, 9.0), size=SIZE) is None
    whole = annotation_of(TileLabel(box(10.0004, 10.0004, 11.0006, 11.0006), 1, "a", 1, 9.0), size=SIZE)
    assert whole is not None
    assert whole["fraction"] == 1.0  # although rounding made it larger


def test_holes_become_run_lengths_that_pycocotools_reads(release: Release) -> None:
    folder = materialise(release)

    test = COCO(str(folder / "annotations" / "test.json"))

    (ring,) = [row for row in test.dataset["annotations"] if isinstance(row["segmentation"], dict)]
    expected = np.zeros((SIZE, SIZE), bool)
    expected[20:44, 20:44] = True
    expected[28:36, 28:36] = False
    np.testing.assert_array_equal(test.annToMask(ring).astype(bool), expected)
    assert ring["area"] == expected.sum()


def test_split_without_region_is_an_empty_coco_file(release: Release) -> None:
    folder = materialise(release)

    assert COCO(str(folder / "annotations" / "val.json")).getImgIds() == []
    assert coco(folder, "val")["categories"] == [{"id": 1, "name": "RTS"}]


def test_labels_are_clipped_to_their_tiles(campaign: Campaign, site: Site, label_file: Write) -> None:
    across = site.on_tile(5, 0, [(54, 10), (74, 10), (74, 30), (54, 30)])
    import_labels(campaign, label_file(site.square(0, 0), across), coverage=site.block(0, 0, 9, 3))
    folder = materialise(freeze_release(campaign))

    rows = coco(folder, "test")["annotations"]

    assert sorted(row["bbox"][0] for row in rows) == pytest.approx([0, 54], abs=0.01)
    assert [row["area"] for row in rows] == pytest.approx([200, 200], abs=0.2)
    assert [row["fraction"] for row in rows] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert len({row["label"] for row in rows}) == 1


def test_tiles_without_the_anchor_are_left_out_and_named(campaign: Campaign, site: Site, label_file: Write) -> None:
    import_labels(campaign, label_file(site.square(0, 0), site.square(5, 0)), coverage=site.block(0, 0, 9, 3))
    release = freeze_release(campaign)
    west = site.block(0, 0, 6, 3, margin=-10)
    Scene.objects.filter(modality__name="rgb").update(footprint=_geos(west))

    dataset = json.loads((materialise(release) / "dataset.json").read_text())

    assert len(dataset["provenance"]["without_imagery"]) == 3
    assert dataset["provenance"]["coverage"]["rgb"] == 15


def _geos(shape: object) -> object:
    from thawloop.catalog.geometry import as_multipolygon, to_geos

    return to_geos(as_multipolygon(shape))


def test_release_without_imagery_is_refused_and_leaves_nothing(release: Release) -> None:
    Scene.objects.all().delete()

    with pytest.raises(ReleaseRefused, match=r"None of site 1.0.0's train tiles has imagery of rgb: register"):
        materialise(release)
    assert not artifact("releases/site").exists() or not list(artifact("releases/site").iterdir())


def test_second_time_only_looks(release: Release) -> None:
    folder = materialise(release)
    before = (folder / "manifest.json").stat().st_mtime_ns

    assert materialise(release) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_files_can_be_made_again(release: Release) -> None:
    folder = materialise(release)
    checksum = release.manifest_checksum
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    materialise(release)

    assert release.manifest_checksum == checksum
    assert verify(release) == []


def test_the_card_of_a_release_of_before_terms_keeps_the_words_of_its_time(release: Release) -> None:
    """Its checksum is in the manifest, so other words would forbid to make the files again."""
    for added in ("licence", "citation"):
        release.definition["provenance"].pop(added)
    release.definition["provenance"]["left_out"] = []
    release.save()
    card = (materialise(release) / "README.md").read_text()
    assert card.split("\n\n")[3:5] == [
        "Splits are spatial: a tile belongs to the split of its region, and no train or val tile shares ground with a "
        "test tile.",
        "## Classes",
    ]
    assert "## Use" not in card


def test_files_that_would_differ_are_refused(release: Release) -> None:
    folder = materialise(release)
    folder.rename(folder.with_name("away"))
    Modality.objects.filter(name="rgb").update(resampling="nearest")
    Scene.objects.filter(modality__name="rgb").update(scale=0.5)

    with pytest.raises(ReleaseRefused, match="would no longer have the same files"):
        materialise(release)
    assert not folder.exists()


def test_verify_names_every_difference(release: Release) -> None:
    assert verify(release)[0].startswith("site 1.0.0 has no files yet")
    folder = materialise(release)
    assert verify(release) == []

    chip = sorted((folder / "chips" / "rgb").iterdir())[0]
    content = bytearray(chip.read_bytes())
    content[-1] ^= 1
    chip.write_bytes(content)
    (folder / "annotations" / "val.json").unlink()
    (folder / "extra.txt").write_text("")
    (folder / "README.md").write_text("shorter")

    assert verify(release) == [
        "annotations/val.json is missing.",
        "extra.txt is not in the manifest.",
        "README.md has another size than when the release was made.",
        f"chips/rgb/{chip.name} has other content than when the release was made.",
    ]


def test_verify_tells_a_changed_manifest_and_files_that_are_gone(release: Release) -> None:
    folder = materialise(release)
    with (folder / "manifest.json").open("a") as file:
        file.write("\n")
    assert verify(release) == ["manifest.json was changed after the release was made."]
    with pytest.raises(ReleaseRefused, match="would no longer have the same files"):
        materialise(release)

    folder.rename(folder.with_name("away"))

    assert verify(release) == ["site 1.0.0's files are gone: write them again with `release --campaign site`."]


def test_job_writes_the_files(release: Release) -> None:
    heard: list[str] = []
    job = enqueue("thawloop.releases.jobs.materialise", key=f"materialise:{release.pk}", args={"release": release.pk})

    job = run_inline(job.pk, lambda _, message: heard.append(message))

    assert job.state == "succeeded", job.error
    assert job.result["manifest_checksum"] == Release.objects.get().manifest_checksum
    assert "4 of 8 tiles" in heard


def test_detector_accepts_the_directory(release: Release) -> None:
    from ml_backend.detector.dataset import read_dataset
    from ml_backend.detector.validation import check_dataset

    dataset = read_dataset(materialise(release))

    specs = check_dataset(dataset, ["rgb", "dem"], ["train", "test"])
    assert [spec.name for spec in specs] == ["rgb", "dem"]
    assert len(dataset.tiles("val")) == 0
    assert sum(len(tile.instances) for tile in dataset.tiles("test")) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_is_one_sentence_and_leaves_nothing(release: Release, tmp_path: Path, settings: Settings) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        settings.THAWLOOP_ARTIFACTS = str(disk)
        with pytest.raises(Refused, match=r"is full.*could not be written.*nothing was left half done"):
            materialise(release)
        assert [path for path in disk.rglob("*") if path.is_file()] == []
        release.refresh_from_db()
        assert release.state == Release.State.FROZEN
    finally:
        subprocess.run(["umount", str(disk)], check=True)


_KILLED = """
import os, signal, sys
import django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.THAWLOOP_ARTIFACTS, settings.THAWLOOP_DATA_ROOTS = sys.argv[3], [sys.argv[4]]
from thawloop.releases.models import Release
from thawloop.releases.services import materialise
def progress(fraction, message):
    if message.startswith(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)
materialise(Release.objects.get(pk=sys.argv[2]), progress=progress)
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("moment", ["4 of", "annotations", "done"])
def test_killed_half_way_and_run_again_gives_the_same_files(
    make_campaign: Callable[..., Campaign],
    site: Site,
    label_file: Write,
    data_root: Path,
    settings: Settings,
    moment: str,
) -> None:
    campaign = make_campaign()
    import_labels(campaign, label_file(site.square(0, 0), site.square(5, 0)), coverage=site.block(0, 0, 9, 3))
    release = freeze_release(campaign)
    arguments = [
        settings.DATABASES["default"]["NAME"],
        str(release.pk),
        settings.THAWLOOP_ARTIFACTS,
        str(data_root),
        moment,
    ]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    release.refresh_from_db()
    assert artifact("releases/site/1.0.0").exists() == (moment == "done") == (release.state == "ready")

    materialise(release)
    again = release.manifest_checksum
    assert verify(release) == []

    settings.THAWLOOP_ARTIFACTS += "-fresh"
    Release.objects.update(state="frozen", path="", manifest_checksum="")
    release.refresh_from_db()
    materialise(release)
    assert release.manifest_checksum == again
