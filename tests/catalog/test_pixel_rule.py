"""What pixels mean is the same for scenes of the catalog as for the chips of tests/contracts/test_pixels.py."""

from datetime import date

import numpy as np
import pytest
from rasterio.windows import Window

from ml_backend.detector.chips import read_chip
from tests.contracts.test_pixels import CASES, HEIGHT, RGB, WIDTH, write
from thawloop.catalog.rasters import open_raster
from thawloop.catalog.resampling import read_window
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import define_modality, register_scene


@pytest.mark.django_db
@pytest.mark.parametrize(("array", "options", "valid"), CASES.values(), ids=CASES)
def test_a_scene_is_valid_where_its_chip_would_be(tmp_path, settings, array, options, valid):
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path)]
    rgb = define_modality("rgb3", bands=["red", "green", "blue"], range_min=0, range_max=255)
    file = write(tmp_path / "a.tif", array, **options)
    said = SceneOptions(band_indexes=[1, 2, 3])
    scene, _ = register_scene(str(file), modality=rgb, acquired=date(2021, 7, 1), options=said)
    with open_raster(scene.uri) as dataset:
        values, _ = read_window(dataset, scene, Window(0, 0, WIDTH, HEIGHT), 1)

    chip, chip_valid = read_chip(file, RGB)
    np.testing.assert_array_equal(~np.isnan(values[0]), valid)
    np.testing.assert_array_equal(chip_valid, valid)
    np.testing.assert_array_equal(values[:, valid], chip[:, valid])
    assert scene.valid_share == pytest.approx(valid.mean())
