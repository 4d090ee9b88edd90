"""What strangers' geometry may cost: bounded, refused by feature, and without harm to the process that asked."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
from pytest_django import Settings
from shapely.geometry import Polygon, box

from thawloop.catalog.errors import DefinitionRefused, VectorFileRefused
from thawloop.catalog.services import define_region
from thawloop.catalog.vectors import sandbox
from thawloop.catalog.vectors.mending import Mender, TooCostly
from thawloop.catalog.vectors.reading import read_vector_file

# On a machine that is busy enough, the time on the clock ends a child before the processor's does.
TOO_SLOW = re.compile(r"takes (more than 1 s of processor time|longer than \d+ s)")
SOUND = [box(-111, 72, -110.9, 72.1), box(-110, 72, -109.9, 72.1), box(-109, 72, -108.9, 72.1)]


@pytest.fixture(autouse=True)
def one_second(settings: Settings) -> None:
    """So much processor time for a feature."""
    settings.THAWLOOP_VECTOR_FEATURE_SECONDS = 1


def tangle(vertices: int) -> Polygon:
    """A ring that crosses itself about vertices² / 6 times."""
    return Polygon(np.random.default_rng(0).uniform([-111, 71.8], [-109, 72.2], (vertices, 2)))


def needles(count: int) -> Polygon:
    """A zigzag of long diagonal strokes: quick to write down, slow to compare with each other."""
    x, y = np.repeat(np.arange(count) * 1e-5, 2), np.tile([0.0, 1.0, 1.0, 0.0], count // 2)
    line = np.column_stack([x + 0.9 * y, y])
    return Polygon(np.vstack([line, line[::-1] + np.array([5e-6, 0])]))


def write_gpkg(path: Path, *shapes: shapely.Geometry) -> Path:
    pyogrio.raw.write(path, shapely.to_wkb(shapes), [], [], geometry_type="Polygon", crs="EPSG:4326", driver="GPKG")
    return path


def test_a_polygon_that_takes_too_long_is_refused_by_name_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_gpkg(tmp_path / "x.gpkg", SOUND[0], tangle(20_000), SOUND[1], tangle(20_001), SOUND[2])

    features = read_vector_file(path).features

    assert [feature.id for feature in features] == ["1", "2", "3", "4", "5"]
    assert [feature.polygons for feature in features[::2]] == [shapely.MultiPolygon([shape]) for shape in SOUND]
    assert all(feature.polygons is None and TOO_SLOW.search(feature.refused) for feature in features[1::2])


def test_a_polygon_that_takes_too_much_memory_is_refused(tmp_path: Path, settings: Settings) -> None:
    settings.THAWLOOP_VECTOR_MEMORY_BYTES = 700_000_000
    settings.THAWLOOP_VECTOR_FEATURE_SECONDS = 60

    first, second = read_vector_file(write_gpkg(tmp_path / "x.gpkg", tangle(3_000), SOUND[0])).features

    assert first.polygons is None
    assert "memory" in first.refused
    assert second.polygons is not None


def test_nested_collections_end_no_process_of_ours(tmp_path: Path) -> None:
    deep = "GEOMETRYCOLLECTION(" * 200_000 + "POINT(0 0)" + ")" * 200_000
    path = tmp_path / "x.csv"
    path.write_text(f'wkt\n"SRID=4326;{SOUND[0].wkt}"\n"{deep}"\n"SRID=4326;{SOUND[1].wkt}"\n')

    features = read_vector_file(path).features

    assert [feature.polygons is not None for feature in features] == [True, False, True]
    assert "nested too deeply" in features[1].refused


def test_a_file_may_take_so_long_in_all(tmp_path: Path, settings: Settings) -> None:
    settings.THAWLOOP_VECTOR_SECONDS = 0
    with pytest.raises(VectorFileRefused, match=r"x\.gpkg takes more than 0 s .* THAWLOOP_VECTOR_SECONDS"):
        read_vector_file(write_gpkg(tmp_path / "x.gpkg", SOUND[0]))


def test_a_child_that_was_killed_while_it_had_nothing_to_do_is_replaced(tmp_path: Path) -> None:
    path = write_gpkg(tmp_path / "x.gpkg", SOUND[0])
    read_vector_file(path)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    assert len(read_vector_file(path).features) == 1


def test_a_child_is_used_again_and_ends_with_its_budget(tmp_path: Path) -> None:
    """However large the process is that asks: the peak of that is not the child's."""
    path = write_gpkg(tmp_path / "x.gpkg", SOUND[0])
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    np.ones(sandbox.KEEP_BYTES, np.uint8)
    read_vector_file(path)
    before = children()
    read_vector_file(path)
    assert len(before) == 1
    assert children() == before
    with pytest.raises(TooCostly):
        Mender().repair(tangle(20_000))
    assert children() == []


def test_a_child_knows_no_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    monkeypatch.setenv("DATABASE_URL", "postgis://user:secret@host/name")
    read_vector_file(write_gpkg(tmp_path / "x.gpkg", SOUND[0]))
    (pid,) = children()
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()


def children() -> list[int]:
    """Processes of ours that read vector files."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"catalog.vectors.child" in command:
            found.append(int(status.parent.name))
    return found


def test_a_mistake_of_ours_is_no_broken_feature() -> None:
    with pytest.raises(RuntimeError, match="KeyError"):
        list(sandbox.ask({"operation": "there is no such operation", "seconds": 1}, shapely.to_wkb(SOUND[0])))


def test_many_costly_outlines_share_one_budget() -> None:
    mender, started = Mender(2), time.process_time()
    refused = []
    for number in range(50):
        try:
            mender.repair(tangle(20_000 + number))
        except TooCostly as error:
            refused.append(str(error))
    assert len(refused) == 50
    assert "after others that took all the time there is" in refused[-1]
    assert time.process_time() - started < 5


def test_what_is_repaired_elsewhere_is_what_is_repaired_here() -> None:
    outline = tangle(60)
    assert Mender().repair(outline).equals(shapely.make_valid(outline, method="structure", keep_collapsed=False))
    larger = tangle(120)
    assert Mender().repair(larger).equals(shapely.make_valid(larger, method="structure", keep_collapsed=False))
    assert Mender().repair(SOUND[0]) is SOUND[0]


@pytest.mark.django_db
def test_a_region_that_takes_too_long_to_look_at_is_refused() -> None:
    with pytest.raises(DefinitionRefused, match=f"`slow` {TOO_SLOW.pattern}: simplify it"):
        define_region("slow", needles(20_000))


def test_nested_json_is_a_bad_request(client: object, db: None) -> None:
    from django.contrib.auth import get_user_model
    from rest_framework.test import APIClient

    api = APIClient()
    api.force_authenticate(get_user_model().objects.create_superuser("lead"))
    deep = '{"type":"GeometryCollection","geometries":[' * 20_000 + "]}" * 20_000
    answer = api.post("/api/regions/", f'{{"geometry": {deep}}}', content_type="application/json")
    assert answer.status_code == 400
    assert "nested" in json.dumps(answer.json())
