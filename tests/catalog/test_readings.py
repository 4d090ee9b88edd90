"""Ingest says what it makes of alpha, scale, offset and colour tables, and offers the other reading."""

import json
from datetime import date
from io import StringIO

import numpy as np
import pytest
import rasterio
from django.core.management import call_command
from rasterio.enums import ColorInterp

from tests.catalog.periods import SUMMER
from thawloop.catalog.chips import read_chip
from thawloop.catalog.errors import AlreadyDefined, RasterRefused
from thawloop.catalog.models import Scene
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import register_scene

pytestmark = pytest.mark.django_db

SIDE = 200


@pytest.fixture
def label_in_alpha(write_raster):
    """Imagery everywhere, and an alpha band that is 255 only inside a slump."""
    pixels = np.random.default_rng(0).integers(40, 200, (4, SIDE, SIDE), dtype=np.uint8)
    pixels[3] = 0
    pixels[3, 90:120, 80:110] = 255
    return str(write_raster(pixels, "label.tif", photometric="rgb", alpha="yes"))


@pytest.fixture
def scaled(write_raster):
    """Tenths, said so in the file."""
    path = write_raster(np.full((1, SIDE, SIDE), 3000, np.int16), "scaled.tif")
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.1,), (-5.0,)
    return str(path)


def palette(write_raster):
    path = write_raster(np.full((1, SIDE, SIDE), 7, np.uint8), "palette.tif", photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {7: (10, 20, 30, 255)})
    return str(path)


def register(uri, modality, **said):
    return register_scene(uri, modality=modality, acquired=SUMMER, options=SceneOptions(**said))[0]


def test_a_label_mask_in_the_alpha_band_hides_nothing_and_is_told(label_in_alpha, make_modality, make_tile):
    scene = register(label_in_alpha, make_modality())

    assert (scene.alpha, scene.valid_share) == ("ignored", 1.0)
    assert "looks like a label mask" in scene.warnings[0]
    assert read_chip(make_tile(500_700, 7_599_000), [scene.modality]).valid["rgb"].all()


def test_an_alpha_band_may_be_said_to_be_validity(label_in_alpha, make_modality, make_tile):
    scene = register(label_in_alpha, make_modality(), alpha="validity")

    assert scene.valid_share == pytest.approx(900 / SIDE**2)
    assert any("hides a" not in warning and "Only 2.2%" in warning for warning in scene.warnings)
    assert read_chip(make_tile(500_700, 7_599_000), [scene.modality]).valid["rgb"].mean() < 0.3


def test_an_alpha_band_over_blank_pixels_stays_validity(write_raster, make_modality):
    pixels = np.random.default_rng(0).integers(40, 200, (4, SIDE, SIDE), dtype=np.uint8)
    pixels[:, :50], pixels[3, 50:] = 0, 255

    scene = register(str(write_raster(pixels, photometric="rgb", alpha="yes")), make_modality())

    assert (scene.alpha, scene.valid_share, scene.warnings) == ("validity", 0.75, [])
    assert scene.notes == ["The alpha band says what is valid; it hides 25.0% of the sampled pixels."]


def test_a_mask_over_a_picture_is_validity_with_a_warning_and_may_be_ignored(write_raster, make_modality):
    pixels = np.random.default_rng(0).integers(40, 200, (3, SIDE, SIDE), dtype=np.uint8)
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:100] = 0
    uri = str(write_raster(pixels, mask=mask))

    clouds = register(uri, make_modality())
    assert (clouds.alpha, clouds.valid_share) == ("validity", 0.5)
    assert "is a picture like the rest" in clouds.warnings[0]

    everything = register(uri, make_modality("all"), alpha="ignored")
    assert (everything.alpha, everything.valid_share, everything.warnings) == ("ignored", 1.0, [])


def test_scale_and_offset_declared_in_the_file_are_applied_and_told(scaled, make_modality, make_tile):
    scene = register(scaled, make_modality("dem", ("elevation",)))

    assert (scene.scale, scene.offset) == (0.1, -5.0)
    assert "stored numbers x 0.1 + -5" in scene.notes[0]
    np.testing.assert_allclose(read_chip(make_tile(500_700, 7_599_000), [scene.modality]).arrays["dem"], 295, rtol=1e-5)


def test_a_scale_that_is_given_counts_and_the_files_own_is_mentioned(scaled, make_modality):
    scene = register(scaled, make_modality("dem", ("elevation",)), scale=1.0)

    assert (scene.scale, scene.offset) == (1.0, 0.0)
    assert "declares scale and offset 0.1 and -5" in scene.warnings[0]


def test_bands_of_different_scales_are_refused_with_the_remedy(write_raster, make_modality):
    path = write_raster(np.ones((2, SIDE, SIDE), np.int16))
    with rasterio.open(path, "r+") as file:
        file.scales = (0.1, 0.2)

    with pytest.raises(RasterRefused, match=r"for each band.*-unscale"):
        register(str(path), make_modality("m", ("a", "b")))
    assert register(str(path), make_modality("m", ("a", "b")), scale=1).scale == 1


def test_a_scene_keeps_the_reading_it_was_registered_with(scaled, label_in_alpha, make_modality):
    """As scenes do that were registered before declared scales and label masks were heeded."""
    dem, rgb = make_modality("dem", ("elevation",)), make_modality()
    old = [register(scaled, dem), register(label_in_alpha, rgb)]
    Scene.objects.update(scale=1.0, offset=0.0, alpha="validity")

    again = [register(scaled, dem), register(label_in_alpha, rgb)]

    assert [scene.pk for scene in again] == [scene.pk for scene in old]
    assert [(scene.scale, scene.alpha) for scene in again] == [(1.0, "validity")] * 2
    assert "was registered with 1 and 0, which count" in again[0].warnings[-1]
    assert "registered as validity, which counts" in again[1].warnings[-1]
    with pytest.raises(AlreadyDefined, match=r"scale = 1\.0, not 0\.5"):
        register(scaled, dem, scale=0.5)
    with pytest.raises(AlreadyDefined, match="alpha = validity, not ignored"):
        register(label_in_alpha, rgb, alpha="ignored")


def test_a_colour_table_is_refused_unless_its_numbers_are_said_to_be_measurements(
    write_raster, make_modality, make_tile
):
    uri, modality = palette(write_raster), make_modality("m", ("a",))

    with pytest.raises(RasterRefused, match=r"colour table.*--color-table ignored"):
        register(uri, modality)
    scene = register(uri, modality, color_table="ignored")

    assert "colour table is ignored" in scene.warnings[0]
    assert read_chip(make_tile(500_700, 7_599_000), [modality]).arrays["m"].max() == 7


@pytest.mark.parametrize(
    ("said", "match"), [({"alpha": "yes"}, "alpha is 'yes'"), ({"color_table": "x"}, "color_table")]
)
def test_other_words_are_refused(scaled, make_modality, said, match):
    with pytest.raises(RasterRefused, match=match):
        register(scaled, make_modality("dem", ("elevation",)), **said)


def test_few_valid_pixels_are_warned_of(write_raster, make_modality):
    pixels = np.zeros((1, SIDE, SIDE), np.uint8)
    pixels[:, :2] = 9

    scene = register(str(write_raster(pixels, nodata=0)), make_modality("m", ("a",)))

    assert scene.warnings == ["Only 1.0% of the sampled pixels hold data: check nodata, mask and alpha."]


def test_the_exif_orientation_of_a_scene_is_mentioned(tmp_path, make_modality):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    with rasterio.open(tmp_path / "a.jpg", "r+") as file:
        file.crs, file.transform = "EPSG:32608", rasterio.Affine(10, 0, 500_000, 0, -10, 7_600_000)

    assert "EXIF orientation (6) is not followed" in register(str(tmp_path / "a.jpg"), make_modality()).warnings[0]


def test_a_large_scene_is_judged_by_a_sample(write_raster, make_modality):
    pixels = np.ones((1, 2600, 2600), np.uint8)
    pixels[:, :1300] = 0

    scene = register(str(write_raster(pixels, nodata=0, tiled=True, compress="deflate")), make_modality("m", ("a",)))

    assert scene.valid_share == pytest.approx(0.5)


def test_ingest_says_it_all(label_in_alpha, make_modality):
    make_modality()
    text, machine = StringIO(), StringIO()

    call_command("ingest", label_in_alpha, modality="rgb", date=date(2021, 7, 1), stdout=text)
    call_command("ingest", label_in_alpha, modality="rgb", date=date(2021, 7, 1), json=True, stdout=machine)

    assert "100.0% valid" in text.getvalue()
    assert "Warning: The alpha band hides 97.8%" in text.getvalue()
    (scene,) = json.loads(machine.getvalue())["scenes"]
    assert (scene["alpha"], scene["valid_share"], len(scene["warnings"])) == ("ignored", 1.0, 1)


def test_alpha_is_told_from_the_file_not_from_band_four(write_raster, make_modality):
    """Near infrared as a fourth band is a measurement."""
    path = write_raster(np.ones((4, SIDE, SIDE), np.uint16))
    with rasterio.open(path) as file:
        assert ColorInterp.alpha not in file.colorinterp

    assert register(str(path), make_modality("m", ("a", "b", "c", "d"))).notes == []
