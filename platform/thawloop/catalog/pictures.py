"""Pictures of tiles for people: one PNG per tile and modality, and the addresses they are shown at.

The address of a picture is unguessable and does not expire: Label Studio stores it with the task for good, and
annotators' browsers fetch it without logging in to ThawLoop.
"""

import hashlib
import io
import math
from collections.abc import Sequence

import numpy as np
from django.conf import settings
from django.urls import get_script_prefix, reverse
from django.utils.crypto import constant_time_compare, salted_hmac
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from thawloop.catalog.chips import ChipReader
from thawloop.catalog.colormaps import colormap
from thawloop.catalog.contrast import tones_of
from thawloop.catalog.errors import PictureRefused
from thawloop.catalog.models import Modality, Scene, Tile
from thawloop.catalog.picture_cache import picture_cache
from thawloop.catalog.selectors import measured_inputs, scene_state

SMALLEST_SIDE = 512
LARGEST_SIDE = 4096
SMALL_SIDES = (64, 128, 256)  # for maps and lists; few, so that what is kept is asked for again
DRAWN_IN = 2  # Raise when pictures come out differently: browsers then ask again.

_SALT = "thawloop.catalog.pictures"
_OUTLINE = (255, 212, 0)

Ring = NDArray[np.floating] | Sequence[Sequence[float]]


def picture_size(tile: Tile) -> int:
    """Side of a tile's pictures in pixels: the tile's, enlarged by a whole factor until people see enough."""
    return tile.grid.tile_size * math.ceil(SMALLEST_SIDE / tile.grid.tile_size)


def picture_url(tile: Tile, modality: Modality) -> str:
    """The absolute address of a picture, as annotators' browsers reach us."""
    # THAWLOOP_URL has the path under which a proxy shows us; in a web process the address has it, too.
    path = reverse("catalog:picture", args=[tile.key, modality.name]).removeprefix(get_script_prefix())
    return f"{settings.THAWLOOP_URL.rstrip('/')}/{path}?s={signature(tile.key, modality.name)}"


def signature(key: str, modality: str) -> str:
    """The signature that makes a picture's address unguessable."""
    return _sign(key, modality, settings.SECRET_KEY)


def is_signed(key: str, modality: str, given: str) -> bool:
    """Whether a signature is ours, made with the present secret key or one of its predecessors."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(constant_time_compare(given, _sign(key, modality, secret)) for secret in secrets)


def _sign(key: str, modality: str, secret: str) -> str:
    return salted_hmac(_SALT, f"{key}/{modality}", secret=secret, algorithm="sha256").hexdigest()[:40]


def picture_key(tile: Tile, modality: Modality, size: int) -> str:
    """Differs when the picture does: with its scenes and their files, the modality's definition, and how we draw."""
    with ChipReader([modality], only=tile) as reader:
        inputs = measured_inputs(modality)
        scenes = [(source.pk, scene_state(scene)) for source in inputs for scene in reader.scenes(tile, source)]
    definitions = [[getattr(row, field.attname) for field in row._meta.concrete_fields] for row in (modality, *inputs)]
    grid = [getattr(tile.grid, field.attname) for field in tile.grid._meta.concrete_fields]
    said = repr((DRAWN_IN, size, tile.key, tile.period_start, tile.period_end, grid, definitions, scenes))
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def drawn(tile: Tile, modality: Modality, size: int, key: str) -> bytes:
    """The picture of a key: kept from before, or drawn and kept.

    Raises:
        ChipUnreadable: A registered raster is gone or damaged.
    """
    cache = picture_cache()
    picture = cache.get(key)
    if picture is None:
        picture = render(tile, modality, size=size)
        cache.put(key, picture)
    return picture


def render(
    tile: Tile,
    modality: Modality,
    *,
    size: int | None = None,
    outlines: Sequence[Sequence[Ring]] | None = None,
) -> bytes:
    """Draw a tile as people see it.

    Three bands are drawn as red, green and blue (by name, else in order), others in the modality's colour table or in
    grey; where there is no data, hatched.

    Args:
        tile: The tile.
        modality: What to show of it.
        size: Side of the picture in pixels; None: `picture_size`.
        outlines: Polygons to draw on it, each its rings [N, 2] in tile pixels, exterior first.

    Returns:
        A PNG file.

    Raises:
        PictureRefused: The size is out of range.
        ChipUnreadable: A registered raster is gone or damaged.
    """
    side = size or picture_size(tile)
    if not 16 <= side <= LARGEST_SIDE:
        raise PictureRefused(f"A picture's side must be 16 to {LARGEST_SIDE} pixels, not {side}.")
    with ChipReader([modality], only=tile) as reader:
        array = reader.read(tile).arrays.get(modality.name)
        scenes = [] if modality.is_derived else reader.scenes(tile, modality)
    picture = _hatching(side) if array is None else _draw(array, modality, scenes[0] if scenes else None, side)
    if outlines:
        _draw_outlines(picture, outlines, side / tile.grid.tile_size)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _draw(array: NDArray[np.float32], modality: Modality, scene: Scene | None, side: int) -> Image.Image:
    valid = ~np.isnan(array[0])
    levels = tones_of(modality, scene).apply(_filled(array, valid))
    shown = _shown_bands(modality)
    if len(shown) == 3:
        colors = levels[shown].transpose(1, 2, 0)
    elif modality.colormap:
        colors = colormap(modality.colormap)[levels[shown[0]]]
    else:
        colors = np.repeat(levels[shown[0]][:, :, None], 3, axis=2)
    picture = Image.fromarray(np.ascontiguousarray(colors)).resize((side, side), Image.Resampling.BICUBIC)
    if not valid.all():
        missing = Image.fromarray((~valid).astype(np.uint8) * 255).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(_hatching(side), mask=missing)
    return picture


def _filled(array: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Missing pixels take the nearest value, so that enlarging blends no wrong colour into the edge."""
    if valid.all():
        return array
    from scipy.ndimage import distance_transform_edt  # imported late: half a second that every process would pay

    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return array[:, rows, columns]


def _shown_bands(modality: Modality) -> list[int]:
    names = [band.lower() for band in modality.bands]
    if {"red", "green", "blue"} <= set(names):
        return [names.index(color) for color in ("red", "green", "blue")]
    return [0, 1, 2] if len(names) >= 3 else [0]


def _hatching(side: int) -> Image.Image:
    """Grey with diagonal stripes: nothing was measured here."""
    rows, columns = np.indices((side, side))
    stripes = np.where((rows + columns) % 16 < 3, 150, 190).astype(np.uint8)
    return Image.fromarray(np.repeat(stripes[:, :, None], 3, axis=2))


def _draw_outlines(picture: Image.Image, outlines: Sequence[Sequence[Ring]], scale: float) -> None:
    pen = ImageDraw.Draw(picture)
    for polygon in outlines:
        for ring in polygon:
            points = [(float(x) * scale, float(y) * scale) for x, y in ring]
            pen.line([*points, points[0]], fill=(0, 0, 0), width=4, joint="curve")
            pen.line([*points, points[0]], fill=_OUTLINE, width=2, joint="curve")
