"""Pictures of tiles for people."""

import io

import numpy as np
import pytest
from django.contrib.auth import get_user_model
from PIL import Image

from thawloop.catalog.contrast import tones_of
from thawloop.catalog.errors import DefinitionRefused, PictureRefused
from thawloop.catalog.models import Modality
from thawloop.catalog.pictures import is_signed, picture_size, picture_url, render
from thawloop.catalog.services import define_modality, ensure_builtin

pytestmark = pytest.mark.django_db
INSIDE = (500_700, 7_599_000)


def pixels(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def path_of(url: str) -> str:
    return url.split("//", 1)[1].partition("/")[1] + url.split("//", 1)[1].partition("/")[2]


@pytest.fixture
def scene(make_scene, make_modality):
    rows, columns = np.mgrid[0:200, 0:200]
    array = np.stack([rows, columns, 255 - rows]).astype(np.uint8)
    return make_scene(array, modality=make_modality(parameters={"stretch": "range"}))


def test_small_tiles_are_enlarged_by_a_whole_factor(scene, make_tile):
    assert picture_size(make_tile(*INSIDE, tile_size=64)) == 512
    assert picture_size(make_tile(*INSIDE, tile_size=100)) == 600
    assert picture_size(make_tile(*INSIDE, tile_size=512, pixel_size=1)) == 512
    assert pixels(render(make_tile(*INSIDE), scene.modality)).shape == (512, 512, 3)


def test_three_bands_are_red_green_and_blue(scene, make_tile):
    tile = make_tile(*INSIDE)
    shown = pixels(render(tile, scene.modality, size=64))
    top, left = round((7_600_000 - (tile.row + 1) * 640) / 10), round((tile.col * 640 - 500_000) / 10)

    np.testing.assert_allclose(shown[:, :, 0], np.arange(top, top + 64)[:, None].repeat(64, 1), atol=1)
    np.testing.assert_allclose(shown[:, :, 1], np.arange(left, left + 64)[None].repeat(64, 0), atol=1)


def test_colours_are_found_by_name(make_scene, make_tile, make_modality):
    modality = make_modality("bgr", ("blue", "green", "red"), parameters={"stretch": "range"})
    make_scene(
        np.stack([np.full((200, 200), v, np.uint8) for v in (10, 20, 250)]),
        modality=modality,
        register={"band_indexes": [1, 2, 3]},
    )
    assert pixels(render(make_tile(*INSIDE), modality))[256, 256].tolist() == [250, 20, 10]


def test_what_is_seen_is_stretched_to_the_scene_and_alike_in_neighbouring_tiles(make_scene, make_tile, make_modality):
    modality = make_modality("nir", ("nir",), range_max=10_000)
    columns = np.tile(np.arange(1000, 1000 + 300), (300, 1)).astype(np.uint16)
    make_scene(columns, modality=modality)
    a, b = make_tile(500_700, 7_599_000), make_tile(501_340, 7_599_000)

    left, right = pixels(render(a, modality, size=64)), pixels(render(b, modality, size=64))

    assert right[0, 0, 0] - left[0, -1, 0] in (0, 1, 2)
    assert right.max() - left.min() > 100


def test_one_band_takes_its_colour_table_or_grey(make_scene, make_tile):
    dem = ensure_builtin("dem")
    make_scene(np.tile(np.arange(200, dtype=np.float32), (200, 1)), modality=dem)
    tile = make_tile(*INSIDE)

    coloured, grey = pixels(render(tile, dem)), pixels(render(tile, ensure_builtin("hillshade")))

    assert (coloured[:, :, 0] != coloured[:, :, 2]).any()
    assert (grey[:, :, 0] == grey[:, :, 2]).all()


def test_ground_without_data_is_hatched(make_scene, make_tile, make_modality):
    array = np.full((3, 200, 200), 255, np.uint8)
    array[:, :, :100] = 0
    modality = make_modality(parameters={"stretch": "range"})
    make_scene(array, modality=modality, nodata=0)
    shown = pixels(render(make_tile(*INSIDE), modality))

    hatched = np.isin(shown[:, :, 0], (150, 190))
    assert 0 < hatched.mean() < 1
    assert set(np.unique(shown[~hatched])) == {255}
    assert len(np.unique(shown[hatched])) == 2


def test_a_tile_without_the_modality_is_hatched_all_over(make_tile, make_modality):
    shown = pixels(render(make_tile(*INSIDE), make_modality()))
    assert set(np.unique(shown)) == {150, 190}


def test_all_nodata_and_constant_scenes_do_not_break_the_stretch(make_scene, make_tile, make_modality):
    flat = make_modality("flat", ("a",))
    empty = make_modality("empty", ("a",))
    make_scene(np.full((200, 200), 7, np.uint16), modality=flat, name="flat.tif")
    make_scene(np.zeros((200, 200), np.uint16), modality=empty, name="empty.tif", nodata=0)
    for modality in (flat, empty):
        assert pixels(render(make_tile(*INSIDE), modality)).shape == (512, 512, 3)


def test_outlines_are_drawn_where_they_are(scene, make_tile):
    tile = make_tile(*INSIDE)
    square = [[(10, 10), (50, 10), (50, 50), (10, 50)]]
    plain, drawn = pixels(render(tile, scene.modality)), pixels(render(tile, scene.modality, outlines=[square]))

    changed = np.argwhere((plain != drawn).any(axis=2))
    assert changed.min() == pytest.approx(80, abs=3)
    assert changed.max() == pytest.approx(400, abs=3)


def test_sizes_out_of_range_are_refused(scene, make_tile):
    with pytest.raises(PictureRefused):
        render(make_tile(*INSIDE), scene.modality, size=100_000)


def test_a_signed_address_shows_the_picture_to_anybody(client, scene, make_tile, settings):
    settings.THAWLOOP_URL = "http://thaw.example:9000/"
    tile = make_tile(*INSIDE)
    url = picture_url(tile, scene.modality)
    assert url.startswith(f"http://thaw.example:9000/tiles/{tile.key}/rgb.png?s=")

    answer = client.get(path_of(url))

    assert answer.status_code == 200
    assert answer["Content-Type"] == "image/png"
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert "max-age" in answer["Cache-Control"]
    assert answer.content == render(tile, scene.modality)


def test_without_a_signature_only_those_who_may_view_tiles_see_it(client, scene, make_tile):
    tile = make_tile(*INSIDE)
    bare = path_of(picture_url(tile, scene.modality)).partition("?")[0]
    assert client.get(bare).status_code == 403
    assert client.get(f"{bare}?s=0000").status_code == 403
    stranger = get_user_model().objects.create_user("stranger")
    client.force_login(stranger)
    assert client.get(bare).status_code == 403
    client.force_login(get_user_model().objects.create_superuser("lead"))
    assert client.get(bare).status_code == 200


def test_a_signature_is_good_for_one_picture_and_survives_a_change_of_key(scene, make_tile, settings):
    tile, other = make_tile(*INSIDE), make_tile(500_000, 7_599_000)
    signature = picture_url(tile, scene.modality).rpartition("=")[2]
    assert is_signed(tile.key, "rgb", signature)
    assert not is_signed(tile.key, "nir", signature)
    assert not is_signed(other.key, "rgb", signature)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another" * 8
    assert is_signed(tile.key, "rgb", signature)


def test_unchanged_pictures_are_not_sent_again(client, scene, make_tile, make_scene):
    path = path_of(picture_url(make_tile(*INSIDE), scene.modality))
    etag = client.get(path)["ETag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304

    make_scene(np.full((3, 200, 200), 9, np.uint8), modality=scene.modality, name="newer.tif")
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_unknown_tiles_and_modalities_are_not_found(client, scene, make_tile):
    client.force_login(get_user_model().objects.create_superuser("lead"))
    assert client.get("/tiles/nothing/rgb.png").status_code == 404
    assert client.get(f"/tiles/{make_tile(*INSIDE).key}/nothing.png").status_code == 404


def test_a_damaged_raster_is_said_and_not_cached(client, scene, make_tile, tmp_path):
    path = path_of(picture_url(make_tile(*INSIDE), scene.modality))
    (tmp_path / "scene.tif").write_bytes(b"II*\0broken")
    answer = client.get(path)
    assert answer.status_code == 503
    assert b"scene.tif" in answer.content
    assert "Cache-Control" not in answer


def test_derived_pictures_change_with_the_scenes_below(client, make_scene, make_tile):
    slope = ensure_builtin("slope")
    make_scene(np.random.default_rng(0).normal(0, 5, (200, 200)).astype(np.float32), modality=ensure_builtin("dem"))
    tile = make_tile(*INSIDE)
    first = client.get(path_of(picture_url(tile, slope)))["ETag"]
    make_scene(np.zeros((200, 200), np.float32), modality=Modality.objects.get(name="dem"), name="b.tif")
    assert client.get(path_of(picture_url(tile, slope)))["ETag"] != first


def test_two_bands_show_the_first_in_grey(make_scene, make_tile):
    pair = define_modality("pair", bands=["vv", "vh"], range_min=0, range_max=255, parameters={"stretch": "range"})
    make_scene(np.stack([np.full((200, 200), v, np.uint8) for v in (200, 3)]), modality=pair)
    assert pixels(render(make_tile(*INSIDE), pair))[256, 256].tolist() == [200, 200, 200]


GROUND = {"plain", "saturated pixels", "collar of zeros", "mostly collar", "cloud 1 %", "cloud 3 %", "cloud 10 %",
          "cloud 30 %", "cloud 70 %", "snow on one half", "sea on one half"}  # fmt: skip


def ground_scene(case):
    """Tundra in the upper left, 16 bits, and elsewhere what spoils percentiles."""
    rng = np.random.default_rng(1)
    array = rng.normal(900, 150, (3, 256, 256)).clip(200, 3000)
    if case == "saturated pixels":
        array[:, rng.integers(64, 256, 600), rng.integers(0, 256, 600)] = 65535
    elif "collar" in case:
        width = 120 if case.startswith("collar") else 40
        array[:, width:, :] = array[:, :, width:] = 0
    elif case.startswith("cloud"):
        rows = round(256 * int(case.split()[1]) / 100)
        array[:, 256 - rows :, :] = rng.normal(7000, 800, (3, rows, 256)).clip(4000, 12000)
    elif case == "snow on one half":
        array[:, :, 128:] = rng.normal(9000, 100, (3, 256, 128))
    elif case == "sea on one half":
        array[:, :, 128:] = rng.normal(150, 8, (3, 256, 128))
    return array.astype(np.uint16)


@pytest.mark.parametrize("case", sorted(GROUND))
def test_land_is_seen_whatever_else_is_in_the_scene(make_scene, make_tile, make_modality, case):
    modality = make_modality("rgb", range_max=10_000)
    make_scene(ground_scene(case), modality=modality)
    shown = pixels(render(make_tile(500_200, 7_599_700, tile_size=32), modality))
    darkest, brightest = np.percentile(shown, (5, 95))
    assert brightest - darkest > 50
    assert 30 < shown.mean() < 225


def test_clouds_keep_their_shapes(make_scene, make_tile, make_modality):
    modality = make_modality("rgb", range_max=10_000)
    make_scene(ground_scene("cloud 30 %"), modality=modality)
    shown = pixels(render(make_tile(500_200, 7_597_700, tile_size=32), modality))
    assert np.percentile(shown, 95) - np.percentile(shown, 5) > 20
    assert shown.mean() > 180


def test_colours_keep_their_order_under_a_cloud(make_scene, make_tile, make_modality):
    modality = make_modality("rgb", range_max=10_000)
    array = ground_scene("cloud 10 %")
    array[1, :96, :96] += 500  # green
    make_scene(array, modality=modality)
    red, green, blue = pixels(render(make_tile(500_200, 7_599_700, tile_size=32), modality)).mean(axis=(0, 1))
    assert green > red + 40
    assert green > blue + 40


def slump(depth):
    """Elevation of a slope of 2 degrees with a bowl of 120 m across, on a grid of 10 m."""
    rows, columns = np.mgrid[0:200, 0:200]
    bowl = np.clip(1.5 - np.hypot(rows - 100, columns - 70) * 10 / 40, 0, 1)
    return (300 + columns * 0.35 - depth * bowl).astype(np.float32)


@pytest.mark.parametrize("name", ["relative_elevation", "hillshade", "slope"])
def test_relief_shows_a_slump_of_two_metres(make_scene, make_tile, name):
    relief = ensure_builtin(name)
    tile = make_tile(*INSIDE)
    make_scene(slump(0), modality=ensure_builtin("dem"), name="flat.tif")
    flat = pixels(render(tile, relief))
    make_scene(slump(2), modality=Modality.objects.get(name="dem"), name="slump.tif")
    changed = np.abs(pixels(render(tile, relief)) - flat).max(axis=2)
    bowl = np.pi * 40**2 / 640**2  # of the tile
    assert (changed > 20).mean() > 0.5 * bowl


def test_relief_is_the_same_in_every_tile_and_ends_at_the_range():
    relief = ensure_builtin("relative_elevation")
    tones = tones_of(relief, None)
    levels = tones.apply(np.array([[[-80, -50, -2, 0, 2, 50, 80]]], np.float32))[0, 0]
    assert levels.tolist() == sorted(levels.tolist())
    assert (levels[0], levels[1], levels[3], levels[-1]) == (0, 0, 128, 255)
    assert levels[4] - levels[3] > 40


def test_a_lead_chooses_the_stretch_and_nonsense_is_refused(make_modality):
    even = tones_of(make_modality("even", ("a",), kind="terrain", parameters={"stretch": "range"}), None)
    assert even.apply(np.array([[[0, 127.5, 255]]], np.float32)).ravel().tolist() == [0, 128, 255]
    with pytest.raises(DefinitionRefused, match="stretch is one of range, scene, relief"):
        make_modality("odd", ("a",), parameters={"stretch": "pretty"})
