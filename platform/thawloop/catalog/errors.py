"""What the catalog refuses, by kind."""

from thawloop.core.errors import Conflict, Refused, Unavailable


class RasterRefused(Refused):
    """A raster file cannot be registered as a scene."""


class VectorFileRefused(Refused):
    """A vector file (labels, a region) cannot be read; nothing was taken from it."""


class DefinitionRefused(Refused):
    """A modality, grid, region or split is described in a way that cannot work."""


class TilesRefused(Refused):
    """Tiles cannot be made as asked."""


class AlreadyDefined(Conflict):
    """The name is taken by something else, or the same thing is already there under other terms."""


class ChipUnreadable(Unavailable):
    """A registered raster can no longer be read: it moved, was cut short or was damaged."""


class PictureRefused(Refused):
    """A picture cannot be drawn as asked."""
