"""Generated scenes: the same every time, with an answer that is true, and look-alikes that need the DEM."""

import hashlib
import json

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.features import rasterize

from demo.landforms import BARE_PATCH, GREEN_BOWL, SLUMP, slump_outline, window_of
from demo.scenes import SceneSize, generate

SIZE = SceneSize(columns=5, rows=4)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("scenes"), SIZE, seed=3)


def truth_in_pixels(scenes):
    collection = json.loads(scenes.truth.read_text())
    project = Transformer.from_crs(4326, 3413, always_xy=True).transform
    with rasterio.open(scenes.optical) as optical:
        to_pixel = ~optical.transform

    def convert(lonlat):
        x, y = project(lonlat[:, 0], lonlat[:, 1])
        return np.column_stack(to_pixel @ (x, y))

    return [shapely.transform(shapely.geometry.shape(f["geometry"]), convert) for f in collection["features"]]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    small = SceneSize(columns=2, rows=2)
    digests = [
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in (found.optical, found.dem, found.truth)]
        for found in (generate(tmp_path / f"{n}", small, seed=seed) for n, seed in enumerate((1, 1, 2)))
    ]
    assert digests[0] == digests[1]
    assert all(a != b for a, b in zip(digests[0], digests[2], strict=True))


def test_files_are_tiled_with_overviews_and_lie_on_the_grid(scenes):
    with rasterio.open(scenes.optical) as optical, rasterio.open(scenes.dem) as dem:
        assert optical.crs.to_epsg() == dem.crs.to_epsg() == 3413
        assert optical.descriptions == ("blue", "green", "red", "nir")
        assert optical.profile["tiled"]
        assert optical.overviews(1)
        step = SIZE.tile_size * SIZE.pixel_size
        assert optical.bounds.left % step == optical.bounds.top % step == 0
        assert optical.bounds == pytest.approx(dem.bounds)
        assert dem.res[0] == pytest.approx(4.0)
        missing = 1 - dem.dataset_mask().mean() / 255
        assert 0.005 < missing < 0.1


def test_truth_is_valid_inside_the_scene_and_apart(scenes):
    shapes = truth_in_pixels(scenes)
    assert len(shapes) == scenes.slumps > 8
    rows, columns = SIZE.shape
    for shape in shapes:
        assert shape.is_valid
        assert shape.geom_type == "Polygon"
        assert shapely.box(0, 0, columns, rows).contains(shape)
        assert shape.area >= 100
    tree = shapely.STRtree(shapes)
    left, right = tree.query(shapes, predicate="intersects")
    assert set(left) == set(right)
    assert np.array_equal(left, right)


def test_slumps_are_bare_and_lie_below_their_rim(scenes):
    shapes = truth_in_pixels(scenes)
    with rasterio.open(scenes.optical) as optical:
        _, _, red, nir = optical.read().astype(float)
    ndvi = (nir - red) / (nir + red)
    inside = rasterize(shapes, ndvi.shape).astype(bool)
    around = rasterize([shape.buffer(8) for shape in shapes], ndvi.shape).astype(bool) & ~inside
    assert np.median(ndvi[inside]) < 0.2 < 0.35 < np.median(ndvi[around])
    with rasterio.open(scenes.dem) as dem:
        elevation = dem.read(1, masked=True)
        scale = dem.transform
    lower = []
    for shape in shapes:
        ground = shapely.affinity.scale(shape, 0.75, 0.75, origin=(0, 0))
        core = rasterize([ground.buffer(-2)], elevation.shape).astype(bool)
        rim = rasterize([ground.buffer(4)], elevation.shape).astype(bool) & ~rasterize(
            [ground.buffer(1)], elevation.shape
        ).astype(bool)
        if core.any() and not elevation.mask[core | rim].any():
            lower.append(elevation[rim].mean() - elevation[core].mean())
    assert scale.a == pytest.approx(4.0)
    assert len(lower) > 5
    assert np.mean(np.array(lower) > 1.0) > 0.8


def test_outline_narrows_into_a_tongue_downslope():
    rng = np.random.default_rng(5)
    for _ in range(50):
        outline = slump_outline((100, 100), (0.0, 1.0), 40, rng)
        assert outline.is_valid
        top, bottom = outline.bounds[1], outline.bounds[3]
        upper = outline.intersection(shapely.box(0, top, 200, (top + bottom) / 2)).area
        assert upper > 0.5 * outline.area


def test_look_alikes_are_of_both_kinds():
    from demo.scenes import place
    from demo.terrain import make_ground

    rng = np.random.default_rng(3)
    forms = place(make_ground(SIZE.shape, SIZE.pixel_size, rng), SIZE, rng)
    kinds = [form.kind for form in forms]
    assert kinds.count(SLUMP) > kinds.count(BARE_PATCH) > 2
    assert kinds.count(GREEN_BOWL) > 2
    for form in forms:
        window = window_of(form, SIZE.shape)
        assert window.inside.sum() == pytest.approx(form.outline.area, rel=0.15)
        assert window.along[window.inside].min() == pytest.approx(0)
        assert window.along[window.inside].max() == pytest.approx(1)
