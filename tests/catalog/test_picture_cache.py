"""Pictures are drawn once, and never shown when something that they are made of has changed."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from django.contrib.auth import get_user_model

from tests.catalog.test_pictures import INSIDE, path_of, pixels
from thawloop.catalog import pictures
from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.picture_cache import PictureCache
from thawloop.catalog.pictures import picture_url, render

PICTURE = b"\x89PNG" + b"x" * 992 + b"IEND\xaeB`\x82"  # a kilobyte, nearly


@pytest.fixture(autouse=True)
def kept(settings, tmp_path):
    settings.THAWLOOP_PICTURE_CACHE = str(tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def shown(make_scene, make_modality, make_tile):
    """The address of a picture of a scene."""
    values = np.random.default_rng(0).integers(1, 255, (3, 200, 200)).astype(np.uint8)
    scene = make_scene(values, modality=make_modality())
    return path_of(picture_url(make_tile(*INSIDE), scene.modality))


def test_a_picture_is_drawn_once(client, shown, monkeypatch):
    first = client.get(shown)
    monkeypatch.setattr(pictures, "render", lambda *args, **kwargs: pytest.fail("drawn again"))
    assert client.get(shown).content == first.content
    assert client.get(shown, headers={"If-None-Match": first["ETag"]}).status_code == 304


def test_a_file_that_was_corrected_in_place_is_drawn_anew(client, shown, write_raster):
    first = client.get(shown)
    time.sleep(0.02)
    write_raster(np.random.default_rng(1).integers(1, 255, (3, 200, 200)).astype(np.uint8))
    second = client.get(shown, headers={"If-None-Match": first["ETag"]})
    assert second.status_code == 200
    assert second.content != first.content


def test_a_mask_that_appears_beside_the_file_is_drawn(client, shown, write_raster):
    first = client.get(shown)
    (scene,) = Scene.objects.all()
    with rasterio.open(scene.uri) as raster:
        profile = {"width": raster.width, "height": raster.height, "transform": raster.transform, "crs": raster.crs}
    with rasterio.open(f"{scene.uri}.msk", "w", driver="GTiff", count=1, dtype="uint8", **profile) as mask:
        mask.write(np.zeros((1, profile["height"], profile["width"]), np.uint8))
        mask.update_tags(INTERNAL_MASK_FLAGS_1="2")
    assert client.get(shown)["ETag"] != first["ETag"]


@pytest.mark.parametrize(
    "change", [{"parameters": {"stretch": "range"}}, {"range_max": 200.0}, {"bands": ["c", "b", "a"]}]
)
def test_another_definition_is_drawn_anew(client, shown, change):
    first = client.get(shown)
    Modality.objects.update(**change)
    assert client.get(shown)["ETag"] != first["ETag"]


def test_small_pictures_are_small_and_only_of_some_sizes(client, shown):
    full, small = client.get(shown), client.get(f"{shown}&size=128")
    assert (pixels(full.content).shape[0], pixels(small.content).shape[0]) == (512, 128)
    assert len(small.content) < len(full.content) / 3
    assert small["ETag"] != full["ETag"]
    assert client.get(f"{shown}&size=129").status_code == 400
    assert client.get(f"{shown}&size=../..").status_code == 400


def test_proxies_keep_only_what_its_address_opens_to_all(client, shown):
    assert client.get(shown)["Cache-Control"].startswith("public")
    client.force_login(get_user_model().objects.create_superuser("lead"))
    answer = client.get(shown.partition("?")[0])
    assert answer["Cache-Control"].startswith("private")
    assert "Access-Control-Allow-Origin" not in answer


def test_what_is_kept_opens_to_nobody_else(client, shown):
    client.get(shown)
    assert client.get(shown.partition("?")[0]).status_code == 403


def test_a_folder_that_cannot_be_written_makes_no_picture_fail(client, shown, kept):
    kept.write_text("a file, where the folder should be")
    assert client.get(shown).status_code == 200


def test_a_picture_that_was_cut_off_is_drawn_anew(client, shown, kept):
    first = client.get(shown)
    (path,) = kept.glob("*/*.png")
    path.write_bytes(first.content[:100])
    assert client.get(shown).content == first.content


def test_the_folder_is_bounded_and_what_is_asked_for_stays(kept):
    cache = PictureCache(kept, 20_000)
    for number in range(20):
        cache.put(f"{number:02}", PICTURE)
        os.utime(kept / f"{number:02}" / f"{number:02}.png", (number, number))
    assert cache.get("03") == PICTURE
    cache.put("20", PICTURE)
    cache.trim()
    assert sum(path.stat().st_size for path in kept.glob("*/*.png")) <= 16_000
    assert cache.get("03") == PICTURE
    assert cache.get("20") == PICTURE
    assert cache.get("00") is None


def test_writing_alone_keeps_the_folder_bounded(kept):
    cache = PictureCache(kept, 20_000)
    for number in range(200):
        cache.put(f"{number:03}", PICTURE)
    assert len(list(kept.glob("*/*.png"))) < 20 + 64


def test_what_a_killed_process_left_is_removed_later(kept):
    cache = PictureCache(kept, 10_000)
    cache.put("aa", PICTURE)
    for name, age in (("old", 7200), ("new", 0)):
        part = kept / "aa" / f"{name}.part"
        part.write_bytes(b"half a picture")
        os.utime(part, (time.time() - age, time.time() - age))
    cache.trim()
    assert sorted(path.name for path in kept.glob("*/*")) == ["aa.png", "new.part"]


def test_many_write_read_and_trim_at_once(kept):
    def work(seed):
        cache = PictureCache(kept, 5_000)
        for number in np.random.default_rng(seed).integers(0, 30, 60):
            cache.put(f"{number:02}", PICTURE)
            cache.trim()
            assert cache.get(f"{number:02}") in (None, PICTURE)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_nothing_is_kept_where_nothing_may_be(client, shown, kept, settings):
    settings.THAWLOOP_PICTURE_CACHE_MB = 0
    assert client.get(shown).status_code == 200
    assert not kept.exists()


def test_what_is_kept_is_what_would_be_drawn(client, shown, make_tile):
    client.get(shown)
    assert client.get(shown).content == render(make_tile(*INSIDE), Modality.objects.get())
