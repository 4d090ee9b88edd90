"""Rasters become scenes, or are refused in a sentence."""

import os
from datetime import date, timedelta

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import CRS
from shapely.geometry import Point, box

from tests.catalog.periods import SUMMER
from thawloop.catalog.errors import AlreadyDefined, RasterRefused
from thawloop.catalog.geometry import project, to_shapely
from thawloop.catalog.models import Scene
from thawloop.catalog.scene_options import SceneOptions
from thawloop.catalog.services import ensure_builtin, prepare_scene, register_scene, store_scenes
from thawloop.core.errors import Refused
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.django_db
ONES = np.ones((3, 100, 80), np.uint8)


@pytest.fixture
def rgb(make_modality):
    return make_modality()


def register(path, modality, **how):
    return register_scene(str(path), modality=modality, acquired=SUMMER, options=SceneOptions(**how))


def test_a_scene_says_what_the_file_holds(write_raster, rgb):
    scene, created = register(write_raster(ONES), rgb, provider="us", licence="CC0")

    scene.refresh_from_db()
    assert created
    assert (scene.width, scene.height, scene.dtype, scene.band_indexes) == (80, 100, "uint8", [1, 2, 3])
    assert scene.pixel_size == pytest.approx(10, rel=0.001)
    assert CRS.from_wkt(scene.crs).to_epsg() == 32608
    assert Affine(*scene.transform) == Affine(10, 0, 500_000, 0, -10, 7_600_000)
    outline = project(box(500_000, 7_599_000, 500_800, 7_600_000), 32608, 4326)
    assert to_shapely(scene.footprint).symmetric_difference(outline).area < 1e-4 * outline.area
    assert len(scene.checksum) == 64
    assert scene.size_bytes == os.path.getsize(scene.uri)
    assert AuditEntry.objects.get(action="catalog.register_scene").object_id == str(scene.pk)


def test_the_same_file_again_is_the_same_scene(write_raster, rgb):
    path = write_raster(ONES)
    first, _ = register(path, rgb)
    assert register(path, rgb) == (first, False)
    assert Scene.objects.count() == 1


def test_the_same_file_on_other_terms_is_a_conflict(write_raster, rgb):
    path = write_raster(ONES)
    register(path, rgb)
    with pytest.raises(AlreadyDefined, match=r"scale = 1\.0, not 2"):
        register(path, rgb, scale=2.0)


def test_other_bands_of_the_same_file_are_another_scene(write_raster, rgb):
    path = write_raster(ONES)
    assert register(path, rgb)[1]
    assert register(path, rgb, band_indexes=[3, 2, 1])[1]


def test_a_moved_file_is_followed(write_raster, rgb, tmp_path):
    path = write_raster(ONES)
    scene, _ = register(path, rgb)
    moved = path.rename(tmp_path / "moved.tif")

    assert register(moved, rgb) == (scene, False)

    scene.refresh_from_db()
    assert scene.uri == str(moved)
    assert AuditEntry.objects.filter(action="catalog.move_scene").exists()


def test_a_copy_does_not_move_the_scene(write_raster, rgb, tmp_path):
    path = write_raster(ONES)
    register(path, rgb)
    copy = tmp_path / "copy.tif"
    copy.write_bytes(path.read_bytes())

    assert register(copy, rgb)[0].uri == str(path)


def test_a_batch_is_stored_whole_or_not_at_all(write_raster, rgb):
    good = prepare_scene(str(write_raster(ONES, "good.tif")), modality=rgb, acquired=SUMMER)
    bad = prepare_scene(str(write_raster(ONES + 1, "bad.tif")), modality=rgb, acquired=SUMMER)
    bad.scene.provider = "x" * 500

    with pytest.raises(Refused, match="provider"):
        store_scenes([good, bad])
    assert not Scene.objects.exists()


def test_progress_is_reported_up_to_the_end(write_raster, rgb):
    seen = []
    path = write_raster(ONES)
    prepare_scene(str(path), modality=rgb, acquired=SUMMER, progress=lambda *sizes: seen.append(sizes))
    assert seen[-1] == (path.stat().st_size,) * 2


@pytest.mark.parametrize(
    ("raster", "expected"),
    [
        ({"descriptions": ("blue", "green", "red")}, [3, 2, 1]),
        ({"descriptions": ("Blue", "GREEN", "red")}, [3, 2, 1]),
        ({"photometric": "rgb"}, [1, 2, 3]),
        ({}, [1, 2, 3]),
    ],
)
def test_bands_are_told_from_names_colours_or_count(write_raster, rgb, raster, expected):
    assert register(write_raster(ONES, **raster), rgb)[0].band_indexes == expected


def test_bands_that_cannot_be_told_are_asked_for(write_raster, rgb):
    path = write_raster(np.ones((7, 50, 50), np.uint16))
    with pytest.raises(RasterRefused, match=r"has 7 bands .* --band-indexes"):
        register(path, rgb)


@pytest.mark.parametrize("how", [{"band_indexes": [1, 2, 4]}, {"band_indexes": [0, 1, 2]}, {"mask_band": 9}])
def test_bands_that_do_not_exist_are_refused(write_raster, rgb, how):
    with pytest.raises(RasterRefused, match=r"has no (mask )?band \d: its bands are numbered 1 to 3"):
        register(write_raster(ONES), rgb, **how)


def test_the_wrong_number_of_bands_is_refused(write_raster, rgb):
    with pytest.raises(RasterRefused, match=r"has 3 band\(s\) \(red, green, blue\), but 1 were named"):
        register(write_raster(ONES), rgb, band_indexes=[1])


@pytest.mark.parametrize(
    ("raster", "said"),
    [
        ({"crs": None}, "no coordinate reference system.*gdal_edit"),
        ({"transform": None}, "does not say where it lies"),
        ({"crs": 'LOCAL_CS["here",UNIT["metre",1]]'}, "not tied to the Earth"),
        ({"transform": Affine(10, 0, 9e9, 0, -10, 9e9)}, "globe"),
        ({"transform": Affine(10, 10, 5e5, 10, 10, 7e6)}, "where it lies"),
    ],
)
def test_rasters_without_a_place_on_the_globe_are_refused(write_raster, rgb, raster, said):
    with pytest.raises(RasterRefused, match=said):
        register(write_raster(ONES, **raster), rgb)


def test_complex_numbers_are_refused(write_raster, make_modality):
    with pytest.raises(RasterRefused, match="complex numbers"):
        register(write_raster(np.ones((50, 50), np.complex64)), make_modality("m", ("a",)))


def test_too_many_pixels_are_refused(write_raster, rgb, settings):
    settings.THAWLOOP_MAX_RASTER_PIXELS = 7_999
    with pytest.raises(RasterRefused, match=r"80 x 100 = 8,000 pixels.*THAWLOOP_MAX_RASTER_PIXELS"):
        register(write_raster(ONES), rgb)


def test_a_file_cut_short_is_refused(write_raster, rgb):
    path = write_raster(np.random.default_rng(0).integers(0, 255, (3, 600, 600), np.uint8), tiled=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterRefused, match=r"cannot be (read|opened)"):
        register(path, rgb)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello", "format that is not read here"),
        (b"CDF\x01" + bytes(100), "format that is not read here"),
        (b"<GDAL_WMS><Service/></GDAL_WMS>", "format that is not read here"),
        (b"II*\0" + bytes(4), "cannot be opened as GTiff"),
        (b"\x89PNG\r\n\x1a\n", "cannot be opened as PNG"),
        (b"<VRTDataset", "not a well-formed"),
    ],
)
def test_the_format_is_told_by_content_whatever_the_name(tmp_path, rgb, content, said):
    path = tmp_path / "innocent.tif"
    path.write_bytes(content)
    with pytest.raises(RasterRefused, match=said):
        register(path, rgb)


@pytest.mark.parametrize(
    "uri", ["/etc/passwd", "/vsicurl/http://example.com/a.tif", "http://example.com/a.tif", "s3://bucket/a.tif", ""]
)
def test_places_outside_the_roots_are_refused(rgb, uri):
    with pytest.raises(Refused):
        register(uri, rgb)


def test_a_link_out_of_the_roots_is_refused(rgb, tmp_path):
    (tmp_path / "link.tif").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="outside the data roots"):
        register(tmp_path / "link.tif", rgb)


def test_folders_and_missing_files_are_refused(rgb, tmp_path):
    with pytest.raises(Refused, match="folder"):
        register(tmp_path, rgb)
    with pytest.raises(Refused, match="no file"):
        register(tmp_path / "nowhere.tif", rgb)


def test_derived_modalities_take_no_rasters(write_raster):
    with pytest.raises(RasterRefused, match="computed from others"):
        register(write_raster(ONES[0]), ensure_builtin("slope"))


def test_dates_in_the_future_and_useless_scales_are_refused(write_raster, rgb):
    path = write_raster(ONES)
    with pytest.raises(RasterRefused, match="future"):
        register_scene(str(path), modality=rgb, acquired=date.today() + timedelta(days=5))
    with pytest.raises(RasterRefused, match="Scale"):
        register(path, rgb, scale=0.0)


def test_a_scene_over_the_pole_and_one_across_the_antimeridian_have_true_footprints(write_raster, rgb):
    over, _ = register(
        write_raster(ONES, "pole.tif", crs="EPSG:3413", transform=Affine(1e4, 0, -4e5, 0, -1e4, 5e5)), rgb
    )
    across, _ = register(
        write_raster(ONES + 1, "line.tif", crs="EPSG:32660", transform=Affine(1000, 0, 600_000, 0, -1000, 7.8e6)), rgb
    )
    assert to_shapely(over.footprint).intersects(Point(77, 89.9))
    assert not to_shapely(over.footprint).intersects(Point(77, 80))
    assert across.footprint.num_geom == 2
    assert across.footprint.extent[0] == -180
    assert across.footprint.extent[2] == 180


# --- Virtual rasters ---------------------------------------------------------------------------------------------

VRT = """<VRTDataset rasterXSize="80" rasterYSize="100"><SRS>EPSG:32608</SRS>
<GeoTransform>500000,10,0,7600000,0,-10</GeoTransform>{bands}{extra}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource>
<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>{n}</SourceBand>
</SimpleSource></VRTRasterBand>"""


@pytest.fixture
def write_vrt(tmp_path):
    def write(source, name="mosaic.vrt", relative=1, extra=""):
        bands = "".join(BAND.format(n=n, source=source, relative=relative) for n in (1, 2, 3))
        path = tmp_path / name
        path.write_text(VRT.format(bands=bands, extra=extra))
        return path

    return write


def test_a_vrt_of_allowed_rasters_is_read(write_raster, write_vrt, rgb):
    write_raster(ONES, "part.tif")
    scene, _ = register(write_vrt("part.tif"), rgb)
    assert scene.size_bytes > os.path.getsize(scene.uri)


def test_a_vrts_checksum_changes_with_its_sources(write_raster, write_vrt, rgb):
    write_raster(ONES, "part.tif")
    path = write_vrt("part.tif")
    first, _ = register(path, rgb)
    write_raster(ONES + 1, "part.tif")
    assert register(path, rgb)[0].checksum != first.checksum


@pytest.mark.parametrize(
    "source",
    ["/etc/passwd", "../../../../etc/passwd", "/vsicurl/http://example.com/a.tif", "http://example.com/a.tif",
     "vrt://part.tif", "WMS:http://example.com", "NETCDF:a.nc:b", "&lt;VRTDataset/&gt;", "nowhere.tif", ""],
)  # fmt: skip
def test_a_vrt_to_elsewhere_is_refused(write_raster, write_vrt, rgb, source):
    write_raster(ONES, "part.tif")
    for relative in (0, 1):
        with pytest.raises(RasterRefused, match="refers to a source"):
            register(write_vrt(source, relative=relative), rgb)


def test_a_vrt_to_a_file_of_another_format_is_refused(write_vrt, rgb, tmp_path):
    (tmp_path / "wms.tif").write_text("<GDAL_WMS></GDAL_WMS>")
    with pytest.raises(RasterRefused, match="source that cannot be used"):
        register(write_vrt("wms.tif"), rgb)


def test_a_vrt_of_itself_is_refused(write_vrt, rgb):
    with pytest.raises(RasterRefused, match="nested in more than 3"):
        register(write_vrt("mosaic.vrt"), rgb)


@pytest.mark.parametrize(
    "extra",
    [
        '<VRTRasterBand dataType="Byte" band="4" subClass="VRTRawRasterBand"/>',
        '<VRTRasterBand dataType="Byte" band="4" subclass="vrtderivedrasterband">'
        "<PixelFunctionCode>x</PixelFunctionCode></VRTRasterBand>",
        '<Metadata domain="GEOLOCATION"><MDI key="X_DATASET">/etc/passwd</MDI></Metadata>',
        "<OpenOptions><OOI key='a'>b</OOI></OpenOptions>",
    ],
)
def test_a_vrt_that_does_more_than_place_rasters_is_refused(write_raster, write_vrt, rgb, extra):
    write_raster(ONES, "part.tif")
    with pytest.raises(RasterRefused, match=r"may not do here|geolocation"):
        register(write_vrt("part.tif", extra=extra), rgb)


def test_a_vrt_with_an_xml_document_type_is_refused(tmp_path, rgb):
    path = tmp_path / "bomb.vrt"
    path.write_text('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]>' + VRT.format(bands="", extra=""))
    with pytest.raises(RasterRefused, match="document type"):
        register(path, rgb)


@pytest.mark.parametrize(
    "hidden",
    [
        '<SimpleSource SourceFilename="{}"><SourceBand>1</SourceBand></SimpleSource>',
        "<SimpleSource><SourceFilename relativeToVRT='2'>{}</SourceFilename></SimpleSource>",
        "<SimpleSource><SourceFilename>{}<relativeToVRT>1</relativeToVRT></SourceFilename></SimpleSource>",
        "<subClass>VRTRawRasterBand</subClass><SourceFilename>{}</SourceFilename>",
    ],
)
def test_a_vrt_cannot_hide_a_source_from_the_check(write_raster, write_vrt, rgb, hidden):
    part = write_raster(ONES, "part.tif")
    extra = f'<VRTRasterBand dataType="Byte" band="4">{hidden.format(part)}</VRTRasterBand>'
    with pytest.raises(RasterRefused, match=r"may not do here|unusual way"):
        register(write_vrt("part.tif", extra=extra), rgb)


# --- What lies beside a raster -----------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path_factory, write_raster):
    """A raster outside the data roots."""
    return write_raster(ONES + 76, "in.tif").rename(tmp_path_factory.mktemp("elsewhere") / "secret.tif")


@pytest.mark.parametrize("ending", [".ovr", ".msk", ".msk.ovr"])
def test_overviews_and_masks_that_are_virtual_rasters_are_refused(write_raster, write_vrt, rgb, secret, ending):
    write_raster(ONES, "scene.tif.msk")
    path = write_raster(ONES)
    write_vrt(secret, name=f"scene.tif{ending}", relative=0)
    with pytest.raises(RasterRefused, match=r"scene\.tif.* as VRT, only GeoTIFF may"):
        register(path, rgb)
    with pytest.raises(RasterRefused, match="only GeoTIFF may"):
        register(write_vrt("scene.tif"), rgb)


def test_overviews_that_lead_out_of_the_data_roots_are_refused(write_raster, rgb, secret, tmp_path):
    path = write_raster(ONES)
    (tmp_path / "scene.tif.ovr").symlink_to(secret)
    with pytest.raises(RasterRefused, match="outside the data roots"):
        register(path, rgb)


def test_a_raster_that_names_its_overviews_file_is_refused(write_raster, write_vrt, rgb, secret):
    inside, beside = write_raster(ONES, "inside.tif"), write_raster(ONES, "beside.tif")
    with rasterio.open(inside, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    beside.with_name("beside.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI></Metadata></PAMDataset>'
    )
    for path in (inside, beside, write_vrt("inside.tif")):
        with pytest.raises(RasterRefused, match="OVERVIEW_FILE"):
            register(path, rgb)


def test_a_raster_with_overviews_and_a_mask_of_its_own_is_read(write_raster, rgb):
    path = write_raster(np.tile(ONES, (1, 8, 8)))
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(True)
        file.build_overviews([2, 4])
    assert path.with_name("scene.tif.ovr").exists()
    assert path.with_name("scene.tif.msk").exists()
    assert register(path, rgb)[1]
