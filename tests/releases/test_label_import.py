"""Label files become labels: once, whole, and only where they belong."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
from pytest_django import DjangoAssertNumQueries, Settings
from shapely.geometry import MultiPoint, MultiPolygon, Point, Polygon, box

from labeling.models import Label, LabelImport, LabelRevision
from labeling.selectors import current_labels, labelled_tiles
from tests.releases.site import PERIOD, Site
from thawloop.campaigns.models import Campaign, CampaignRegion, LandformClass
from thawloop.catalog.errors import VectorFileRefused
from thawloop.catalog.geometry import geodesic_area, project, to_shapely
from thawloop.catalog.services import define_region
from thawloop.core.context import acting
from thawloop.core.errors import Refused
from thawloop.core.models import AuditEntry
from thawloop.releases.plausibility import Plausibility
from thawloop.releases.services import import_labels
from thawloop.releases.study_area import StudyArea

Write = Callable[..., Path]


def test_polygons_become_labels_with_their_attributes(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file((site.square(0, 0), {"Notes": "fresh", "year": 2021, "nothing": None}), site.square(1, 1))

    with acting(name="importer"):
        found = import_labels(campaign, path)

    assert (found.counts["read"], found.counts["created"]) == (2, 2)
    first, second = current_labels(campaign).order_by("label__origin")
    assert first.label.origin == f"import:{found.pk}:0"
    assert first.label.tile is None
    assert first.properties == {"Notes": "fresh", "year": 2021, "nothing": None}
    assert (first.number, first.state, first.author_name, first.label_import) == (1, "present", "importer", found)
    assert to_shapely(second.geometry).equals_exact(shapely.MultiPolygon([site.square(1, 1)]), 1e-12)
    entry = AuditEntry.objects.get(action="labels.import")
    assert entry.after["created"] == 2


def test_an_import_keeps_how_it_was_taken(campaign: Campaign, site: Site, label_file: Write) -> None:
    plain = import_labels(campaign, label_file((site.square(0, 0), {"kind": "RTS"})))
    told = import_labels(
        campaign,
        label_file((site.square(0, 0), {"kind": "RTS"})),
        class_field="kind",
        coverage=site.block(0, 0, 1, 1),
        splits=["train", "test"],
        regions=["site-train", "site-test"],
    )

    nothing = {"class_field": None, "splits": None, "regions": None}
    assert plain.counts["options"] == nothing | {"class": "RTS", "coverage": "none"}
    assert told.counts["options"] == {
        "class": None,
        "class_field": "kind",
        "coverage": "geometry",
        "splits": ["test", "train"],
        "regions": ["site-test", "site-train"],
    }


def test_same_file_again_changes_nothing(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file(site.square(0, 0))
    first = import_labels(campaign, path)
    copy = path.with_name("copy.geojson")
    copy.write_bytes(path.read_bytes())

    assert import_labels(campaign, copy) == first
    assert Label.objects.count() == LabelRevision.objects.count() == 1


def test_dry_run_counts_and_writes_nothing(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file(site.square(0, 0), site.square(0, 0), Point(0, 0))

    found = import_labels(campaign, path, dry_run=True)

    assert found.pk is None
    assert not LabelImport.objects.exists()
    assert not Label.objects.exists()
    assert {key: found.counts[key] for key in ("read", "created", "duplicate", "refused")} == {
        "read": 3,
        "created": 1,
        "duplicate": 1,
        "refused": 1,
    }
    assert import_labels(campaign, path).counts == found.counts


def test_duplicates_are_collapsed_however_their_rings_start(campaign: Campaign, site: Site, label_file: Write) -> None:
    square = site.square(0, 0)
    turned = Polygon([*list(square.exterior.coords)[2:], *list(square.exterior.coords)[1:3]])

    found = import_labels(campaign, label_file(square, turned, shapely.reverse(square)))

    assert (found.counts["created"], found.counts["duplicate"]) == (1, 2)


def test_labels_that_another_file_gave_already_are_unchanged(campaign: Campaign, site: Site, label_file: Write) -> None:
    import_labels(campaign, label_file(site.square(0, 0)))

    found = import_labels(campaign, label_file(site.square(0, 0), site.square(1, 0), name="grown.geojson"))

    assert (found.counts["created"], found.counts["unchanged"]) == (1, 1)


def test_broken_features_are_named_and_the_rest_imported(campaign: Campaign, site: Site, data_root: Path) -> None:
    square = [list(point) for point in site.square(0, 0).exterior.coords]
    bow = [square[0], square[2], square[1], square[3], square[0]]
    shapes = [
        {"type": "Polygon", "coordinates": [square]},
        {"type": "Polygon", "coordinates": [bow]},
        None,
        {"type": "Polygon", "coordinates": [square[:2]]},
        {"type": "Polygon", "coordinates": []},
        {"type": "LineString", "coordinates": square},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": square[0]}]},
    ]
    features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes]
    path = data_root / "broken.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    found = import_labels(campaign, path)

    assert (found.counts["created"], found.counts["repaired"], found.counts["refused"]) == (2, 1, 5)
    assert found.counts["repairs"][0]["feature"] == "1"
    assert [row["feature"] for row in found.counts["refusals"]] == ["2", "3", "4", "5", "6"]
    assert all(to_shapely(label.geometry).is_valid for label in current_labels(campaign))


def test_what_is_too_large_for_a_landform_is_refused_by_name(campaign: Campaign, site: Site, label_file: Write) -> None:
    # Over both poles: 80 million square kilometres, as a ring that runs twice across the antimeridian.
    west = [(170, 85), (180, 85), (180, -85), (170, -85), (170, 85)]
    poles = Polygon([(-100, -85), (100, -85), (100, 85), (-100, 85), (-100, -85)])
    cap = Polygon([(-120, 85), (0, 85), (120, 85), (-120, 85)])
    path = label_file(poles, cap, Polygon(west), site.square(0, 0), site.block(-30, -30, 70, 60))

    found = import_labels(campaign, path)

    assert (found.counts["created"], found.counts["refused"]) == (1, 4)
    reasons = {row["feature"]: row["reason"] for row in found.counts["refusals"]}
    assert reasons.keys() == {"0", "1", "2", "4"}
    assert reasons["1"] == "encloses a pole, which no landform does"
    assert "km², more than 10 times all regions of the campaign" in reasons["4"]
    assert "--max-area KM2" in reasons["0"]


def test_larger_landforms_may_be_allowed(campaign: Campaign, site: Site, label_file: Write, settings: Settings) -> None:
    wide = site.block(-30, -30, 70, 60)
    assert import_labels(campaign, label_file(wide), max_area=500).counts["created"] == 1
    settings.THAWLOOP_MAX_LANDFORM_KM2 = 1e-3
    with pytest.raises(VectorFileRefused, match=r"km², more than the 0.001 km² that one landform may"):
        import_labels(campaign, label_file(site.square(0, 0), name="b.geojson"))


def test_what_goes_around_the_south_pole_is_no_landform_either(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    cap = Polygon([(-120, -85), (120, -85), (0, -85), (-120, -85)])

    found = import_labels(campaign, label_file(site.square(0, 0), cap))

    assert found.counts["refusals"] == [{"feature": "1", "reason": "encloses a pole, which no landform does"}]


def test_only_what_meets_the_regions_is_measured_by_them(campaign: Campaign, site: Site, label_file: Write) -> None:
    wide = site.block(200, 0, 20, 20)

    found = import_labels(campaign, label_file(site.square(0, 0), wide))

    assert (found.counts["created"], found.counts["outside"], found.counts["refused"]) == (2, 1, 0)


@pytest.mark.parametrize("meridian", [-90, 0, 90])
def test_regions_are_measured_whole_across_any_meridian(meridian: float, settings: Settings) -> None:
    settings.THAWLOOP_MAX_LANDFORM_KM2 = 1e6
    region = MultiPolygon([box(meridian - 0.5, 70, meridian + 0.5, 70.2)])

    found = Plausibility.of(StudyArea(region, region, "here", False), None)

    assert found.near_regions == pytest.approx(10 * geodesic_area(region) / 1e6, rel=0.01)


def test_a_costly_feature_is_refused_by_name_and_the_rest_imported(
    campaign: Campaign, site: Site, label_file: Write, settings: Settings
) -> None:
    settings.THAWLOOP_VECTOR_FEATURE_SECONDS = 1
    west, south, east, north = site.square(1, 1).bounds
    tangle = Polygon(np.random.default_rng(0).uniform([west, south], [east, north], (20_000, 2)))

    found = import_labels(campaign, label_file(site.square(0, 0), tangle, site.square(2, 2)))

    assert (found.counts["created"], found.counts["refused"]) == (2, 1)
    (refusal,) = found.counts["refusals"]
    assert refusal["feature"] == "1"
    # On a machine that is busy enough, the time on the clock ends it before the processor's does.
    assert re.search(r"takes (more than 1 s of processor time|longer than \d+ s): simplify its", refusal["reason"])


def test_height_is_dropped_and_collections_keep_their_polygons(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    high = shapely.force_3d(site.square(0, 0), 12.0)
    mixed = shapely.GeometryCollection([site.square(1, 0), Point(0, 0), site.square(2, 0)])

    import_labels(campaign, label_file(high, mixed))

    shapes = [to_shapely(label.geometry) for label in current_labels(campaign).order_by("label__origin")]
    assert [len(shape.geoms) for shape in shapes] == [1, 2]
    assert not any(shape.has_z for shape in shapes)


def test_classes_come_from_a_field(campaign: Campaign, site: Site, label_file: Write) -> None:
    campaign.classes.add(LandformClass.objects.create(name="Thermokarst lake"))
    path = label_file((site.square(0, 0), {"kind": "rts"}), (site.square(1, 0), {"kind": "thermokarst LAKE "}))

    import_labels(campaign, path, class_field="kind")

    names = current_labels(campaign).values_list("landform_class__name", flat=True)
    assert sorted(names) == ["RTS", "Thermokarst lake"]


def test_of_several_classes_one_must_be_named(campaign: Campaign, site: Site, label_file: Write) -> None:
    campaign.classes.add(LandformClass.objects.create(name="Lake"))
    path = label_file(site.square(0, 0))

    with pytest.raises(
        VectorFileRefused, match="maps Lake, RTS: say which one the file holds, or which field names it"
    ):
        import_labels(campaign, path)
    import_labels(campaign, path, landform_class="lake")

    assert current_labels(campaign).get().landform_class.name == "Lake"
    campaign.classes.clear()
    with pytest.raises(VectorFileRefused, match="maps no class yet"):
        import_labels(campaign, path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"landform_class": "lake"}, "maps RTS, not `lake`"),
        ({"class_field": "kind"}, "feature 0: class `bog` in field `kind` is unknown; this campaign maps RTS"),
        ({"class_field": "typ"}, "no field `typ`: its fields are kind"),
        ({"landform_class": "RTS", "class_field": "kind"}, "not both"),
        ({"coverage": "everything"}, "Coverage `everything` is unknown: use none or regions"),
        ({"splits": ["tset"]}, "Split `tset` is unknown: use train, val, test"),
        ({"splits": ["val"]}, "no region of split val"),
        ({"regions": ["alaska"]}, "no region `alaska`: it has site-test, site-train"),
        ({"splits": ["test"]}, "None of labels.geojson's 1 polygons lies in the regions chosen"),
        ({"crs": "EPSG:99999999"}, "`EPSG:99999999` cannot be used"),
        ({"buffer_points": -3}, "use 1 to 10,000 metres"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    campaign: Campaign, site: Site, label_file: Write, options: dict[str, object], sentence: str
) -> None:
    path = label_file((site.square(0, 0), {"kind": "bog"}))

    with pytest.raises(VectorFileRefused, match=sentence):
        import_labels(campaign, path, **options)
    assert not LabelImport.objects.exists()


def test_wrong_crs_is_refused_with_the_distance(campaign: Campaign, label_file: Write) -> None:
    with pytest.raises(VectorFileRefused, match=r"none.geojson's polygons meets .* km away.*--crs"):
        import_labels(campaign, label_file(box(10, 50, 10.01, 50.01), name="none.geojson"))


def test_a_file_of_another_place_is_said_to_lie_around_the_middle_of_all_its_polygons(
    campaign: Campaign, label_file: Write
) -> None:
    path = label_file(box(11.98, 51.98, 12, 52), box(10, 50, 10.02, 50.02), box(11.5, 50.2, 11.51, 50.21))
    with pytest.raises(VectorFileRefused, match=r"lies around 51\.00, 11\.00 \(latitude, longitude\), "):
        import_labels(campaign, path)


def test_regions_of_another_campaign_are_another_place(campaign: Campaign, site: Site, label_file: Write) -> None:
    other = Campaign.objects.create(name="other", title="Other", grid=campaign.grid, **PERIOD)
    other.classes.set(campaign.classes.all())
    region = define_region("elsewhere", site.block(40, 0, 1, 1))
    CampaignRegion.objects.create(campaign=other, region=region, split="train")
    path = label_file(site.square(40, 0))

    with pytest.raises(VectorFileRefused, match=r"None of labels.geojson's polygons meets a region"):
        import_labels(campaign, path)
    with pytest.raises(VectorFileRefused, match="no region `elsewhere`: it has site-test, site-train"):
        import_labels(campaign, path, regions=["elsewhere"])
    assert import_labels(other, path, regions=["elsewhere"]).counts["created"] == 1


def test_swapped_coordinates_are_recognised(campaign: Campaign, site: Site, label_file: Write) -> None:
    # A campaign where swapping stays on the globe: 74 N, 60 W would; Banks Island's 122 W as a latitude is refused.
    square = site.square(0, 0)
    swapped = Polygon([(y, x) for x, y in square.exterior.coords])
    with pytest.raises(VectorFileRefused, match=r"swapped|beyond ±90"):
        import_labels(campaign, label_file(swapped))


def test_swapped_coordinates_that_stay_on_the_globe_are_recognised() -> None:
    area = StudyArea(box(-60, 70, -59, 71), MultiPolygon([box(-60, 70, -59, 71)]), "greenland", False)
    sentence = area.elsewhere("x.kml", (70.2, -59.8, 70.4, -59.6))
    assert "km away" in sentence
    assert "latitude and longitude are probably swapped" in sentence


@pytest.mark.parametrize(("west", "east"), [(70.2, 95), (-95, 70.4)])
def test_what_would_lie_beyond_a_pole_if_it_were_swapped_is_not_swapped(west: float, east: float) -> None:
    area = StudyArea(box(-60, 70, -59, 71), MultiPolygon([box(-60, 70, -59, 71)]), "greenland", False)
    assert area.elsewhere("x.kml", (west, -59.8, east, -59.6)).endswith(
        "name its coordinate system with --crs EPSG:CODE."
    )


def test_projected_coordinates_need_their_crs(campaign: Campaign, site: Site, data_root: Path) -> None:
    shape = project(site.square(0, 0), 4326, 3413)
    path = data_root / "projected.csv"
    path.write_text(f'wkt,note\n"{shape.wkt}",=1+1\n')

    with pytest.raises(VectorFileRefused, match="does not say its coordinate system"):
        import_labels(campaign, path)
    with pytest.raises(VectorFileRefused, match="latitudes beyond"):
        import_labels(campaign, path, crs="EPSG:4326")
    import_labels(campaign, path, crs="EPSG:3413")

    label = current_labels(campaign).get()
    assert label.properties == {"note": "=1+1"}
    assert to_shapely(label.geometry).symmetric_difference(site.square(0, 0)).area < 1e-12


def test_only_labels_of_the_chosen_splits_are_taken(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file(site.square(0, 0), site.square(5, 0), site.square(6, 1))

    found = import_labels(campaign, path, splits=["test"], coverage="regions")

    assert (found.counts["created"], found.counts["held_back"]) == (2, 1)
    assert {tile.split for tile in labelled_tiles(campaign)} == {"test"}
    assert labelled_tiles(campaign).count() == 6


def test_border_label_belongs_to_its_point_but_coverage_knows_all_of_them(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    # 60 m of gap lie between the regions' margins; most of this label is on the train side.
    across = site.on_tile(3, 0, [(0, 10), (135, 10), (135, 20), (0, 20)])
    assert import_labels(campaign, label_file(across, name="a.geojson"), splits=["train"]).counts["created"] == 1
    with pytest.raises(VectorFileRefused, match="lies in the regions chosen"):
        import_labels(campaign, label_file((across, {"file": 2}), name="b.geojson"), splits=["test"], dry_run=True)

    covering = import_labels(
        campaign, label_file((across, {"file": 2}), name="b.geojson"), splits=["test"], coverage="regions"
    )

    assert (covering.counts["held_back"], covering.counts["unchanged"]) == (0, 1)


def test_points_are_refused_unless_circles_will_do(campaign: Campaign, site: Site, label_file: Write) -> None:
    middle = site.square(0, 0).centroid
    path = label_file(middle, MultiPoint([site.square(1, 1).centroid]))

    with pytest.raises(VectorFileRefused, match=r"2 points and no polygon.*--buffer-points METRES"):
        import_labels(campaign, path)
    import_labels(campaign, path, buffer_points=30)

    areas = [project(to_shapely(label.geometry), 4326, 3413).area for label in current_labels(campaign)]
    # 32 vertices enclose 0.994 of a circle; EPSG:3413 enlarges areas by about 2.5 % here.
    assert areas == pytest.approx([2827, 2827], rel=0.05)


def test_several_layers_must_be_chosen_from(campaign: Campaign, site: Site, data_root: Path) -> None:
    path = data_root / "two.gpkg"
    for layer, col in (("old", 0), ("new", 1)):
        pyogrio.raw.write(
            str(path),
            geometry=shapely.to_wkb([site.square(col, 0)]),
            field_data=[],
            fields=[],
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            crs="EPSG:4326",
            append=path.exists(),
        )

    with pytest.raises(VectorFileRefused, match=r"2 layers \(old, new\): choose one with --layer"):
        import_labels(campaign, path)
    with pytest.raises(VectorFileRefused, match="no layer `newest`: it has old, new"):
        import_labels(campaign, path, layer="newest")
    assert import_labels(campaign, path, layer="new").counts["created"] == 1


def test_a_layer_that_is_not_there_is_refused_in_a_file_of_one_layer_too(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    with pytest.raises(VectorFileRefused, match="has one layer, which is not called `newest`: leave the layer out"):
        import_labels(campaign, label_file(site.square(0, 0)), layer="newest")
    assert import_labels(campaign, label_file(site.square(0, 0)), layer="labels").counts["created"] == 1


def test_coverage_may_be_a_geometry(campaign: Campaign, site: Site, label_file: Write) -> None:
    import_labels(campaign, label_file(site.square(0, 0)), coverage=site.block(0, 0, 1, 2))

    assert sorted(tile.row for tile in labelled_tiles(campaign)) == sorted({5200, 5201})


def test_files_outside_the_roots_are_refused(campaign: Campaign, tmp_path: Path) -> None:
    outside = tmp_path / "outside.geojson"
    outside.write_text("{}")
    link = tmp_path / "data" / "inside.geojson"
    link.symlink_to(outside)
    for hostile in (str(outside), str(link), "/etc/passwd", "/vsicurl/http://example.org/x.geojson", "../x.geojson"):
        with pytest.raises(Refused):
            import_labels(campaign, hostile)


def test_size_is_bounded(campaign: Campaign, site: Site, label_file: Write, settings: Settings) -> None:
    path = label_file(site.square(0, 0))
    settings.THAWLOOP_MAX_VECTOR_BYTES = 100
    with pytest.raises(VectorFileRefused, match="more than the 100 allowed: split it or raise"):
        import_labels(campaign, path)


def test_zip_bombs_are_refused(campaign: Campaign, data_root: Path, settings: Settings) -> None:
    path = data_root / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.geojson", b'{"type":' + b" " * 60_000_000)
    with pytest.raises(VectorFileRefused, match="unpacks to 60,000,008 bytes, more than allowed"):
        import_labels(campaign, path)


def test_many_labels_take_few_queries(
    campaign: Campaign,
    site: Site,
    label_file: Write,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    path = label_file(*(site.square(0, 0, x=x, y=y, side=0.5) for x in range(40) for y in range(25)))

    with django_assert_max_num_queries(20):
        assert import_labels(campaign, path).counts["created"] == 1000
