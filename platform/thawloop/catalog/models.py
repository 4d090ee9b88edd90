"""Modalities, regions, scenes, grids and tiles."""

from django.contrib.gis.db import models
from django.contrib.gis.db.models.functions import Transform
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GistIndex
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db.models import F, Q

NAME = RegexValidator(r"^[a-z0-9][a-z0-9_-]*$", "Use lower-case letters, digits, `_` and `-` only.")


class Modality(models.Model):
    """A named kind of co-registered raster: bands, value range, how it is derived, resampled and shown to people."""

    class Kind(models.TextChoices):
        OPTICAL = "optical", "optical reflectance"
        INDEX = "index", "spectral index"
        ELEVATION = "elevation", "elevation (m)"
        TERRAIN = "terrain", "derived from elevation"
        OTHER = "other"

    class Derivation(models.TextChoices):
        NONE = "", "measured: read from scenes"
        EXPRESSION = "expression", "band math over other modalities"
        RELATIVE_ELEVATION = "relative_elevation", "elevation minus its neighbourhood mean (m)"
        SLOPE = "slope", "slope (degrees)"
        HILLSHADE = "hillshade", "shaded relief (0-1)"

    class Resampling(models.TextChoices):
        NEAREST = "nearest"
        BILINEAR = "bilinear"
        CUBIC = "cubic"
        AVERAGE = "average"

    name = models.CharField(max_length=50, unique=True, validators=[NAME])
    title = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.OPTICAL)
    bands = ArrayField(models.CharField(max_length=50), help_text="Band names in order, e.g. red, green, blue.")
    range_min = models.FloatField(help_text="Smallest meaningful value, in the modality's unit.")
    range_max = models.FloatField(help_text="Largest meaningful value, in the modality's unit.")
    unit = models.CharField(max_length=20, blank=True)
    resampling = models.CharField(max_length=10, choices=Resampling, default=Resampling.BILINEAR)
    is_static = models.BooleanField(default=False, help_text="One acquisition serves every period (a DEM).")
    derivation = models.CharField(max_length=20, choices=Derivation, default=Derivation.NONE, blank=True)
    source = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="derived",
        help_text="The elevation modality that terrain is derived from.",
    )
    expression = models.CharField(
        max_length=300, blank=True, help_text="e.g. `(nir.nir - rgb.red) / (nir.nir + rgb.red)`"
    )
    parameters = models.JSONField(default=dict, blank=True, help_text='Terrain settings, e.g. {"radius_m": 150}.')
    colormap = models.CharField(max_length=30, blank=True, help_text="rio-tiler colormap for one-band pictures.")

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "modalities"
        constraints = [
            models.CheckConstraint(condition=Q(range_min__lt=F("range_max")), name="modality_range_ordered"),
            models.CheckConstraint(condition=Q(bands__len__gte=1), name="modality_has_a_band"),
            models.CheckConstraint(
                condition=~Q(derivation="expression") | ~Q(expression=""), name="modality_expression_given"
            ),
            models.CheckConstraint(
                condition=~Q(derivation__in=["relative_elevation", "slope", "hillshade"]) | Q(source__isnull=False),
                name="modality_terrain_has_source",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_derived(self) -> bool:
        """Whether chips are computed from other modalities rather than read from scenes."""
        return bool(self.derivation)


class Region(models.Model):
    """A named study area: the unit of spatial train/val/test separation."""

    name = models.CharField(max_length=80, unique=True, validators=[NAME])
    title = models.CharField(max_length=150, blank=True)
    geometry = models.MultiPolygonField(srid=4326)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="parts")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.title or self.name


class Scene(models.Model):
    """One raster of one modality. Bands name which of the file's bands hold the modality's, in its order.

    What its pixels mean follows the rule of `contracts.pixels`.
    """

    class Alpha(models.TextChoices):
        VALIDITY = "validity", "says what is valid"
        IGNORED = "ignored", "says nothing"

    modality = models.ForeignKey(Modality, on_delete=models.PROTECT, related_name="scenes")
    uri = models.CharField(max_length=1000, help_text="Path or s3:// URI, below an allowed root.")
    band_indexes = ArrayField(
        models.PositiveIntegerField(), help_text="1-based bands of the file, in the modality's band order."
    )
    mask_band = models.PositiveIntegerField(
        null=True, blank=True, help_text="Band that is 0 where there is no data, if not the file's own mask."
    )
    scale = models.FloatField(default=1.0, help_text="value = raw * scale + offset, in the modality's unit.")
    offset = models.FloatField(default=0.0)
    nodata = models.FloatField(
        null=True, blank=True, help_text="Overrides the file's own nodata value. NaN and infinities are always nodata."
    )
    alpha = models.CharField(
        max_length=8,
        choices=Alpha,
        default=Alpha.VALIDITY,
        help_text="What the file's own alpha band or mask is taken for. Nodata or a mask band given here replace it.",
    )
    valid_share = models.FloatField(
        null=True, blank=True, help_text="Share of sampled pixels that hold data; unknown in scenes registered earlier."
    )
    notes = ArrayField(models.TextField(), default=list, blank=True, help_text="What was made of the file.")
    warnings = ArrayField(models.TextField(), default=list, blank=True, help_text="What looks wrong in the file.")
    footprint = models.MultiPolygonField(srid=4326)
    crs = models.TextField(help_text="WKT2 of the raster's CRS.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    transform = ArrayField(models.FloatField(), size=6, help_text="Affine a, b, c, d, e, f: pixel to CRS.")
    pixel_size = models.FloatField(help_text="Ground pixel size in metres at the scene's centre.")
    dtype = models.CharField(max_length=20)
    acquired = models.DateField()
    checksum = models.CharField(max_length=64, help_text="SHA-256 of the file.")
    size_bytes = models.PositiveBigIntegerField()
    provider = models.CharField(max_length=100, blank=True)
    licence = models.CharField(max_length=200, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-acquired", "id"]
        constraints = [
            models.UniqueConstraint(fields=["modality", "checksum", "band_indexes"], name="scene_registered_once"),
            models.CheckConstraint(condition=Q(band_indexes__len__gte=1), name="scene_has_a_band"),
            models.CheckConstraint(condition=Q(pixel_size__gt=0), name="scene_pixel_size_positive"),
            models.CheckConstraint(condition=Q(alpha__in=["validity", "ignored"]), name="scene_alpha_known"),
        ]
        indexes = [models.Index(fields=["modality", "acquired"])]

    def __str__(self) -> str:
        return f"{self.modality} {self.acquired} {self.uri.rsplit('/', 1)[-1]}"


class TileGrid(models.Model):
    """CRS, pixel size, tile size and overlap: gives every tile a stable id.

    Cell (0, 0) has its lower left at the CRS origin; step = (tile_size - overlap) * pixel_size metres;
    column grows east, row grows north.
    """

    name = models.CharField(max_length=50, unique=True, validators=[NAME])
    srid = models.PositiveIntegerField(default=3413, help_text="EPSG code of a projected CRS in metres.")
    pixel_size = models.FloatField(validators=[MinValueValidator(0.01)], help_text="Metres.")
    tile_size = models.PositiveIntegerField(
        default=512, validators=[MinValueValidator(32), MaxValueValidator(4096)], help_text="Pixels."
    )
    overlap = models.PositiveIntegerField(default=0, help_text="Pixels shared by neighbouring tiles.")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(pixel_size__gt=0), name="grid_pixel_size_positive"),
            models.CheckConstraint(condition=Q(overlap__lt=F("tile_size")), name="grid_overlap_below_tile_size"),
            models.UniqueConstraint(fields=["srid", "pixel_size", "tile_size", "overlap"], name="grid_defined_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Tile(models.Model):
    """One grid cell at one period: the unit that is predicted, annotated, split and exported."""

    grid = models.ForeignKey(TileGrid, on_delete=models.PROTECT, related_name="tiles")
    col = models.IntegerField()
    row = models.IntegerField()
    period = models.CharField(max_length=20, help_text="Label of the period, e.g. `2021`.", validators=[NAME])
    period_start = models.DateField()
    period_end = models.DateField()
    region = models.ForeignKey(
        Region, on_delete=models.PROTECT, related_name="tiles", help_text="The region that holds the tile's centre."
    )
    key = models.CharField(
        max_length=120, unique=True, help_text="Stable id, safe as a file name: `<grid>_<period>_c<col>_r<row>`."
    )
    geometry = models.GeometryField(
        srid=4326, help_text="The footprint: a polygon, or a multipolygon where the tile crosses the antimeridian."
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["grid", "col", "row", "period"], name="tile_once_per_cell_and_period"),
            models.CheckConstraint(condition=Q(period_start__lte=F("period_end")), name="tile_period_ordered"),
        ]
        indexes = [
            GistIndex(Transform("geometry", 3413), name="tile_polar"),  # the map asks in its own projection
            # The map from far away, and every count of a campaign's tiles, without looking at a row.
            models.Index(fields=["region", "grid", "period", "col", "row"], include=["id"], name="tile_of_region"),
        ]

    def __str__(self) -> str:
        return self.key
