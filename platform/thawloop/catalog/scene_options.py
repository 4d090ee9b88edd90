"""What may be said of a raster when it is registered, the same for the API, the command line and campaign files."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What the person who registers a raster says of it. None: as the file says.

    Attributes:
        band_indexes: 1-based bands of the file in the modality's band order; None: found by name, colour or count.
        scale: value = stored number * scale + offset, in the modality's unit. None, for both: as the file declares.
        offset: See `scale`.
        nodata: Replaces the file's own nodata value and mask.
        mask_band: Band that is 0 where there is no data.
        alpha: Whether the file's own alpha band or mask is `validity` or `ignored`; None: validity, unless an alpha
            band hides a picture.
        color_table: `ignored` reads the stored numbers of a file with a colour table as measurements.
        provider: Who made the raster.
        licence: On what terms it may be used.
    """

    band_indexes: Sequence[int] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    mask_band: int | None = None
    alpha: str | None = None
    color_table: str | None = None
    provider: str = ""
    licence: str = ""


AS_THE_FILE_SAYS = SceneOptions()
