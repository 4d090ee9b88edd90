"""The catalog over REST. What is registered stays as it is: rows are added through services and read."""

import math
from collections.abc import Mapping
from typing import Any

import django_filters
from django.contrib.gis.geos import Polygon
from django.db.models import QuerySet
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_gis.fields import GeometryField
from rest_framework_gis.serializers import GeoFeatureModelSerializer

from thawloop.catalog import services
from thawloop.catalog.models import Modality, Region, Scene, Tile, TileGrid
from thawloop.catalog.pictures import picture_url
from thawloop.catalog.scene_options import SceneOptions


class ModalitySerializer(serializers.ModelSerializer[Modality]):
    source = serializers.SlugRelatedField(slug_field="name", queryset=Modality.objects.all(), required=False)

    class Meta:
        model = Modality
        exclude = ["id"]
        # Defining the same again is fine; `define_modality` says what differs if it is not the same.
        extra_kwargs = {"name": {"validators": []}, "title": {"required": False}}


class OutlineField(GeometryField):
    """A GeoJSON Polygon or MultiPolygon. WKT is not read: GEOS ends the process on what is nested deeply."""

    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("type") not in ("Polygon", "MultiPolygon"):
            raise serializers.ValidationError("Give a GeoJSON Polygon or MultiPolygon.")
        return super().to_internal_value(value)


class RegionSerializer(GeoFeatureModelSerializer):  # type: ignore[type-arg]
    """A region as a GeoJSON feature; its properties may also stand beside the geometry."""

    parent = serializers.SlugRelatedField(slug_field="name", queryset=Region.objects.all(), required=False)
    geometry = OutlineField()

    class Meta:
        model = Region
        geo_field = "geometry"
        fields = ["name", "title", "parent", "created"]
        extra_kwargs = {"name": {"validators": []}}

    def to_internal_value(self, data: Any) -> Any:
        """As the parent's, which takes for granted that the feature and its `properties` are objects."""
        if not isinstance(data, Mapping):
            raise serializers.ValidationError({"non_field_errors": ["Give a GeoJSON feature."]})
        if "properties" in data and not isinstance(data["properties"], dict):
            raise serializers.ValidationError({"properties": ["Give an object of named values, or leave it out."]})
        return super().to_internal_value(data)


class NumberOrNothing(serializers.FloatField):
    """JSON has no NaN: `nodata` that is NaN is null, which means the same, for NaN never is data."""

    def to_representation(self, value: Any) -> Any:
        return super().to_representation(value) if math.isfinite(value) else None


class SceneSerializer(serializers.ModelSerializer[Scene]):
    modality = serializers.SlugRelatedField(slug_field="name", queryset=Modality.objects.all())
    band_indexes = serializers.ListField(child=serializers.IntegerField(min_value=1), required=False)
    footprint = GeometryField(read_only=True)
    nodata = NumberOrNothing(required=False, allow_null=True)
    color_table = serializers.ChoiceField(choices=["ignored"], required=False, write_only=True)

    class Meta:
        model = Scene
        fields = "__all__"
        read_only_fields = [
            "footprint", "crs", "width", "height", "transform", "pixel_size", "dtype", "checksum", "size_bytes",
            "valid_share", "notes", "warnings",
        ]  # fmt: skip


class TileGridSerializer(serializers.ModelSerializer[TileGrid]):
    class Meta:
        model = TileGrid
        fields = ["name", "srid", "pixel_size", "tile_size", "overlap"]
        extra_kwargs = {"name": {"validators": []}, "srid": {"required": True}, "tile_size": {"required": True}}
        validators: list[Any] = []


class TileSerializer(GeoFeatureModelSerializer):  # type: ignore[type-arg]
    grid = serializers.SlugRelatedField(slug_field="name", read_only=True)
    region = serializers.SlugRelatedField(slug_field="name", read_only=True)
    pictures = serializers.SerializerMethodField()

    class Meta:
        model = Tile
        geo_field = "geometry"
        id_field = "key"
        fields = ["key", "grid", "col", "row", "period", "period_start", "period_end", "region", "pictures"]

    def get_pictures(self, tile: Tile) -> dict[str, str]:
        """Addresses of the pictures, for the modalities named by `?pictures=rgb,ndvi`."""
        return {modality.name: picture_url(tile, modality) for modality in self.context.get("pictures", [])}


class BoxFilter(django_filters.CharFilter):
    """`?bbox=west,south,east,north` in degrees; west > east crosses the antimeridian."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        if not value:
            return qs
        west, south, east, north = _box(value)
        if west <= east:
            return qs.filter(**{f"{self.field_name}__bboverlaps": _rectangle(west, south, east, north)})
        sides = _rectangle(west, south, 180, north), _rectangle(-180, south, east, north)
        return qs.filter(**{f"{self.field_name}__bboverlaps": sides[0]}) | qs.filter(
            **{f"{self.field_name}__bboverlaps": sides[1]}
        )


def _box(value: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in value.split(","))
    except ValueError as error:
        raise serializers.ValidationError({"bbox": "Give west,south,east,north in degrees."}) from error
    if not (abs(west) <= 180 and abs(east) <= 180 and -90 <= south <= north <= 90):
        raise serializers.ValidationError({"bbox": "Longitudes must be within ±180, latitudes ordered within ±90."})
    return west, south, east, north


def _rectangle(west: float, south: float, east: float, north: float) -> Polygon:
    rectangle = Polygon.from_bbox((west, south, east, north))
    rectangle.srid = 4326
    return rectangle


class TileFilter(django_filters.FilterSet):
    bbox = BoxFilter(field_name="geometry")
    grid = django_filters.CharFilter(field_name="grid__name")
    region = django_filters.CharFilter(field_name="region__name")
    period = django_filters.CharFilter()

    class Meta:
        model = Tile
        fields = ["bbox", "grid", "region", "period"]


class SceneFilter(django_filters.FilterSet):
    bbox = BoxFilter(field_name="footprint")
    modality = django_filters.CharFilter(field_name="modality__name")
    acquired = django_filters.DateFromToRangeFilter()

    class Meta:
        model = Scene
        fields = ["bbox", "modality", "acquired"]


class AddingViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet):  # type: ignore[type-arg]
    """List, read and add."""


class ModalityViewSet(AddingViewSet):
    """The kinds of raster: bands, range, derivation."""

    queryset = Modality.objects.select_related("source")
    serializer_class = ModalitySerializer
    lookup_field = "name"

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = services.define_modality(**serializer.validated_data)


class RegionViewSet(AddingViewSet):
    """Study areas, as GeoJSON."""

    queryset = Region.objects.select_related("parent")
    serializer_class = RegionSerializer
    lookup_field = "name"

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = services.define_region(**serializer.validated_data)


class SceneViewSet(AddingViewSet):
    """Registered rasters. Adding one names a file below an allowed root."""

    queryset = Scene.objects.select_related("modality")
    serializer_class = SceneSerializer
    filterset_class = SceneFilter

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Register a raster: 201 if it is new, 200 if it is known."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        said = dict(serializer.validated_data)
        required = {name: said.pop(name) for name in ("uri", "modality", "acquired")}
        scene, created = services.register_scene(**required, options=SceneOptions(**said))
        code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
        return Response(self.get_serializer(scene).data, status=code)


class TileGridViewSet(AddingViewSet):
    """Tile grids."""

    queryset = TileGrid.objects.all()
    serializer_class = TileGridSerializer
    lookup_field = "name"

    def perform_create(self, serializer: Any) -> None:
        serializer.instance = services.define_grid(**serializer.validated_data)


class TileViewSet(viewsets.ReadOnlyModelViewSet):  # type: ignore[type-arg]
    """Tiles as GeoJSON, newest first; `?bbox=`, `?region=`, `?grid=`, `?period=`, and `?pictures=rgb` for addresses."""

    queryset = Tile.objects.select_related("grid", "region")
    serializer_class = TileSerializer
    filterset_class = TileFilter
    lookup_field = "key"

    def get_serializer_context(self) -> dict[str, Any]:
        names = [name for name in self.request.query_params.get("pictures", "").split(",") if name]
        return {**super().get_serializer_context(), "pictures": list(Modality.objects.filter(name__in=names))}
