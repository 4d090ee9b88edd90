"""The modalities of a campaign file, and the raster files of each."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, Field

from thawloop.setup.table import Date, Listed, Mistake, Name, OneOrMore, Table, Uri

Band = Annotated[int, Field(ge=1, description="a band's number, which counts from 1")]
BandName = Annotated[str, Field(description="a band's name in quotes")]


class RasterOptions(Table):
    """How a raster is read; what is None is left to the file itself. `value = stored number * scale + offset`."""

    bands: OneOrMore[Band] | None = None
    date: Date | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: Annotated[float, AllowInfNan(True)] | None = None
    mask_band: Band | None = None
    alpha: Literal["validity", "ignored"] | None = None
    color_table: Literal["ignored"] | None = None
    provider: str = ""
    licence: str = ""


class RasterSpec(RasterOptions):
    """A raster file of a modality: an absolute path or a URI."""

    path: Uri


RasterFile = Annotated[
    RasterSpec,
    BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value),
    Field(description='one of the paths in quotes, or a table such as {path = "a.tif", bands = [3, 2, 1]}'),
]


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != 2 or values[0] >= values[1]:
        raise ValueError("it must be [smallest, largest], e.g. [0, 1]")
    return values


class ModalityDefinition(Table):
    """What defines a modality that is not built in."""

    title: str = ""
    kind: str = ""
    unit: str = ""
    resampling: str = ""
    static: bool = False
    derivation: str = ""
    source: str = ""
    expression: str = ""
    parameters: dict[str, Any] = {}
    colormap: str = ""
    band_names: OneOrMore[BandName] = ()
    range: Annotated[Listed[float], AfterValidator(_ascending)] | None = None


class ModalitySpec(RasterOptions, ModalityDefinition):
    """A modality of the campaign, and what describes all its files."""

    name: Name
    files: OneOrMore[RasterFile] = ()
    anchor: bool = False
    shown: bool = True
    model_input: bool = True

    @property
    def definition(self) -> dict[str, Any]:
        """The fields of a modality that is not built in, as `define_modality` names them; empty for a built-in one."""
        given = {key: getattr(self, key) for key in ModalityDefinition.model_fields if key in self.model_fields_set}
        if "static" in given:
            given["is_static"] = given.pop("static")
        if "band_names" in given:
            given["bands"] = list(given.pop("band_names"))
        if "range" in given:
            given["range_min"], given["range_max"] = given.pop("range")
        return given

    @property
    def rasters(self) -> tuple[RasterSpec, ...]:
        """The files, each with what the modality's table says of all of them."""
        shared = {key: getattr(self, key) for key in RasterOptions.model_fields if key in self.model_fields_set}
        return tuple(
            file.model_copy(update={key: value for key, value in shared.items() if key not in file.model_fields_set})
            for file in self.files
        )

    def mistakes(self) -> Iterator[Mistake]:
        """An anchor that is not shown."""
        if self.anchor and not self.shown:
            yield ("shown",), "the anchor is the picture people draw on, so it cannot have `shown = false`."
