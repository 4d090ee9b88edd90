"""Modalities, grids and regions."""

import pytest
from django.contrib.gis.geos import GEOSGeometry
from shapely.geometry import LineString, Polygon, box

from thawloop.catalog.builtin import BUILTIN
from thawloop.catalog.errors import AlreadyDefined, DefinitionRefused
from thawloop.catalog.models import Modality, Region
from thawloop.catalog.selectors import measured_inputs
from thawloop.catalog.services import define_grid, define_modality, define_region, ensure_builtin
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.django_db
PLAIN = {"bands": ["a"], "range_min": 0, "range_max": 1}


@pytest.mark.parametrize("name", BUILTIN)
def test_every_builtin_can_be_defined_with_what_it_is_derived_from(name):
    modality = ensure_builtin(name)
    assert ensure_builtin(name) == modality
    assert all(not source.is_derived for source in measured_inputs(modality))


def test_a_builtin_takes_the_range_of_the_data_at_hand():
    assert ensure_builtin("rgb", range_max=10_000).range_max == 10_000
    with pytest.raises(AlreadyDefined, match="range_max = 10000"):
        ensure_builtin("rgb", range_max=255)


def test_a_leads_own_modality_wins_over_the_builtin_of_its_name():
    own = define_modality("dem", **PLAIN)
    assert ensure_builtin("dem") == own


def test_defining_the_same_again_is_fine_and_something_else_is_not():
    first = define_modality("m", **PLAIN)
    assert define_modality("m", **PLAIN) == first
    with pytest.raises(AlreadyDefined, match="range_max"):
        define_modality("m", **{**PLAIN, "range_max": 2})
    assert AuditEntry.objects.filter(action="catalog.define_modality").count() == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": "red"}, "no field `colour`"),
        ({"range_min": 5}, "range"),
        ({"bands": []}, "bands"),
        ({"bands": ["a", "a"]}, "twice"),
        ({"kind": "smell"}, "kind"),
        ({"range_max": float("nan")}, "finite"),
        ({"derivation": "slope"}, "source"),
        ({"derivation": "slope", "source": "nothing"}, "not defined yet"),
        ({"derivation": "expression", "expression": "x.y"}, "`x`, which is not defined"),
        ({"derivation": "expression", "expression": "other.z"}, "`other` are a"),
        ({"derivation": "expression", "expression": "m.a + other.a"}, "itself"),
        ({"derivation": "expression", "expression": "import os"}, "cannot be read"),
        ({"expression": "other.a"}, "derivation"),
        ({"parameters": {"radius_m": 5}}, "no parameter `radius_m`"),
        ({"derivation": "relative_elevation", "source": "other", "parameters": {"radius_m": 0}}, "radius_m"),
        ({"derivation": "relative_elevation", "source": "other", "parameters": {"radius_m": "wide"}}, "radius_m"),
        ({"parameters": {"stretch": "odd"}}, "stretch"),
        ({"parameters": ["stretch"]}, "must be named values"),
        ({"colormap": "nice"}, "nice"),
    ],
)
def test_modalities_that_cannot_work_are_refused_in_a_sentence(fields, said):
    define_modality("other", **PLAIN)
    with pytest.raises(DefinitionRefused, match=said):
        define_modality("m", **{**PLAIN, **fields})
    assert not Modality.objects.filter(name="m").exists()


def test_names_are_safe_in_files_and_addresses():
    for name in ("RGB", "a/b", "../x", "", "a b"):
        with pytest.raises(DefinitionRefused):
            define_modality(name, **PLAIN)


def test_grids_are_defined_once_under_one_name():
    first = define_grid("g", 3413, 3, 128)
    assert define_grid("g", 3413, 3.0, 128) == first
    with pytest.raises(AlreadyDefined, match="tile_size"):
        define_grid("g", 3413, 3, 256)
    with pytest.raises(AlreadyDefined, match="`g`"):
        define_grid("h", 3413, 3, 128)
    (told,) = AuditEntry.objects.filter(action="catalog.define_grid")
    assert told.object_id == str(first.pk)


@pytest.mark.parametrize(
    ("srid", "pixel", "size", "overlap", "said"),
    [
        (4326, 1, 128, 0, "geographic"),
        (2263, 1, 128, 0, "foot"),
        (999_999, 1, 128, 0, "not a known"),
        (3413, 0, 128, 0, "pixel_size"),
        (3413, 1, 8, 0, "tile_size"),
        (3413, 1, 128, 128, "[Oo]verlap"),
    ],
)
def test_grids_that_cannot_work_are_refused(srid, pixel, size, overlap, said):
    with pytest.raises(DefinitionRefused, match=said):
        define_grid("g", srid, pixel, size, overlap)


def test_regions_are_defined_once_under_one_name():
    first = define_region("r", box(10, 60, 11, 61))
    assert define_region("r", GEOSGeometry(box(10, 60, 11, 61).wkt, srid=4326)) == first
    with pytest.raises(AlreadyDefined):
        define_region("r", box(10, 60, 12, 61))


def test_a_region_beyond_180_degrees_is_brought_home():
    region = define_region("r", box(170, 60, 190, 65))
    assert region.geometry.num_geom == 2
    assert region.geometry.extent == (-180, 60, 180, 65)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (box(500_000, 7_000_000, 510_000, 7_010_000), "outside the globe"),
        (Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "not valid"),
        (LineString([(0, 0), (1, 1)]), "LineString"),
        (Polygon(), "empty"),
        (GEOSGeometry("POLYGON((0 0, 1 0, 1 1, 0 0))", srid=3413), "EPSG:3413"),
    ],
)
def test_regions_that_are_no_area_on_the_globe_are_refused(shape, said):
    with pytest.raises(DefinitionRefused, match=said):
        define_region("r", shape)
    assert not Region.objects.exists()
