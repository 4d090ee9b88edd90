"""Virtual rasters (VRT) refer to other files, each of which must be allowed too: below the roots, of a known format.

What a VRT can do beyond placing bands of plain rasters (code in Python, raw bytes of any file as pixels, geolocation
arrays, opening options) is refused.
"""

import re
from pathlib import PurePosixPath
from xml.etree import ElementTree

from thawloop.catalog.errors import RasterRefused
from thawloop.catalog.files import canonical_uri, open_bytes, sniff_driver
from thawloop.core.errors import Refused

_LARGEST_BYTES = 8 * 1024 * 1024
_DEEPEST = 3
_NAMES_A_FILE = ("sourcefilename", "sourcedataset")
_FORBIDDEN_ELEMENTS = ("pixelfunctioncode", "openoptions", "geoloc_array", "group", "array", "dempath")
# To GDAL a child element and an attribute of one name are the same: what is looked at as one must not be the other.
_ONLY_ELEMENTS = (*_NAMES_A_FILE, *_FORBIDDEN_ELEMENTS)
_ONLY_ATTRIBUTES = ("subclass", "relativetovrt")
# GDAL gives meaning to `NETCDF:...` even where a file has that name.
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]*:(?!//)")
_ALLOWED_CLASSES = ("", "vrtsourcedrasterband", "vrtwarpeddataset", "vrtwarpedrasterband")


def check_vrt(uri: str, depth: int = 0) -> list[str]:
    """Check everything a VRT refers to and return the files it reads, nested ones included.

    Args:
        uri: The VRT, already checked itself.
        depth: How many VRTs lead here.

    Raises:
        RasterRefused: It is not well-formed, nests too deeply, or does or names something that is not allowed.
    """
    if depth >= _DEEPEST:
        raise RasterRefused(f"{uri} is nested in more than {_DEEPEST} virtual rasters: name the rasters themselves.")
    sources: list[str] = []
    for element in _parse(uri).iter():
        tag = element.tag.rsplit("}", 1)[-1].lower()
        _check_element(uri, tag, {key.lower(): value for key, value in element.attrib.items()})
        if tag in _NAMES_A_FILE:
            attributes = {key.lower(): value for key, value in element.attrib.items()}
            relative = attributes.get("relativetovrt", "0")
            if len(element) or relative not in ("0", "1"):
                raise RasterRefused(f"{uri} names a source in an unusual way: write <SourceFilename> and a path.")
            source = _resolve(uri, (element.text or "").strip(), relative == "1")
            sources.append(source)
            if _driver(source, uri) == "VRT":
                sources += check_vrt(source, depth + 1)
    return list(dict.fromkeys(sources))


def _parse(uri: str) -> ElementTree.Element:
    with open_bytes(uri) as stream:
        text = stream.read(_LARGEST_BYTES + 1)
    if len(text) > _LARGEST_BYTES:
        raise RasterRefused(f"{uri} is a virtual raster of more than {_LARGEST_BYTES // 2**20} MB: split it.")
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise RasterRefused(f"{uri} is a virtual raster with an XML document type, which is not allowed.")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - entities were refused above
    except ElementTree.ParseError as error:
        raise RasterRefused(f"{uri} is not a well-formed virtual raster: {error}.") from error


def _check_element(uri: str, tag: str, attributes: dict[str, str]) -> None:
    subclass = attributes.get("subclass", "").lower()
    hidden = tag in _ONLY_ATTRIBUTES or any(name in _ONLY_ELEMENTS for name in attributes)
    if hidden or tag in _FORBIDDEN_ELEMENTS or subclass not in _ALLOWED_CLASSES:
        raise RasterRefused(
            f"{uri} uses <{tag}>{f' of class {subclass}' if subclass else ''}, which virtual rasters may not do here: "
            "make a plain GeoTIFF of it with `gdal_translate -of COG`."
        )
    if tag == "mdi" and attributes.get("key", "").lower().endswith("_dataset"):
        raise RasterRefused(f"{uri} refers to geolocation arrays: warp it first with `gdalwarp`.")


def _resolve(uri: str, source: str, relative: bool) -> str:
    if _PREFIX.match(source):
        raise RasterRefused(f"{uri} refers to a source that may not be read: {source!r} is not a plain path.")
    place = str(PurePosixPath(uri).parent / source) if relative and "://" not in uri else source
    if relative and "://" in uri:
        place = f"{uri.rsplit('/', 1)[0]}/{source}"
    if place.startswith("/vsis3/"):
        place = "s3://" + place.removeprefix("/vsis3/")
    try:
        return canonical_uri(place)
    except Refused as error:
        raise RasterRefused(f"{uri} refers to a source that may not be read: {error}") from error


def _driver(source: str, uri: str) -> str:
    try:
        return sniff_driver(source)
    except RasterRefused as error:
        raise RasterRefused(f"{uri} refers to a source that cannot be used: {error}") from error
