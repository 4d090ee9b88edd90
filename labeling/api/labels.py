"""Labels and label imports over HTTP."""

from types import SimpleNamespace
from typing import Any

import django_filters
from django.db.models import F, QuerySet
from drf_spectacular.contrib.rest_framework_gis import GeoFeatureModelSerializerExtension
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_gis.fields import GeometryField
from rest_framework_gis.serializers import GeoFeatureModelSerializer

from labeling.models import Label, LabelImport, LabelRevision
from labeling.services import review_label
from labeling.services.imports import withdraw_import
from thawloop.campaigns.models import LandformClass, Split
from thawloop.catalog.api import BoxFilter
from thawloop.core.pagination import NewestFirst
from thawloop.core.permissions import ModelPermissions


class LabelSerializer(GeoFeatureModelSerializer):  # type: ignore[type-arg]
    """A label's current revision as a GeoJSON feature."""

    geometry = GeometryField(source="current.geometry", read_only=True)
    campaign = serializers.SlugRelatedField("name", read_only=True)
    tile = serializers.SlugRelatedField("key", read_only=True)
    landform_class = serializers.CharField(source="current.landform_class.name", read_only=True)
    state = serializers.CharField(source="current.state", read_only=True)
    revision = serializers.IntegerField(source="current.number", read_only=True)
    author = serializers.CharField(source="current.author_name", read_only=True)
    reason = serializers.CharField(source="current.reason", read_only=True)
    revised = serializers.DateTimeField(source="current.created", read_only=True)
    properties = serializers.JSONField(source="current.properties", read_only=True)

    class Meta:
        model = Label
        geo_field = "geometry"
        fields = [
            "id", "campaign", "tile", "origin", "landform_class", "state", "revision", "author", "reason", "revised",
            "properties", "created",
        ]  # fmt: skip


class LabelRevisionSerializer(GeoFeatureModelSerializer):  # type: ignore[type-arg]
    """One state of a label as a GeoJSON feature."""

    landform_class = serializers.SlugRelatedField("name", read_only=True)

    class Meta:
        model = LabelRevision
        geo_field = "geometry"
        fields = [
            "id", "number", "state", "landform_class", "properties", "annotation", "label_import", "author_name",
            "reason", "created",
        ]  # fmt: skip


class LabelSchema(GeoFeatureModelSerializerExtension):  # type: ignore[no-untyped-call]
    """drf-spectacular looks for the geometry among the model's own fields; a label's is its current revision's."""

    target_class = LabelSerializer
    match_subclasses = False
    priority = 1

    def map_geo_feature_model_serializer(self, serializer: Any, base_schema: Any) -> Any:
        """As the parent, with the revision's geometry field."""
        revision = LabelRevisionSerializer()
        stand_in = SimpleNamespace(fields=revision.fields, Meta=revision.Meta)
        return super().map_geo_feature_model_serializer(stand_in, base_schema)


class ReviewSerializer(serializers.Serializer[Any]):
    """What a reviewer decides about a label, and why."""

    state = serializers.ChoiceField(choices=LabelRevision.State.choices, required=False)
    landform_class = serializers.SlugRelatedField(
        "name", queryset=LandformClass.objects.all(), required=False, help_text="One of the campaign's classes."
    )
    reason = serializers.CharField(max_length=280)


class LabelPermissions(ModelPermissions):
    """A review changes a label; none can be created here."""

    perms_map = {**ModelPermissions.perms_map, "POST": ["labeling.change_label"]}


class LabelFilter(django_filters.FilterSet):
    campaign = django_filters.CharFilter(field_name="campaign__name")
    tile = django_filters.CharFilter(field_name="tile__key")
    landform_class = django_filters.CharFilter(field_name="current__landform_class__name")
    state = django_filters.ChoiceFilter(field_name="current__state", choices=LabelRevision.State.choices)
    split = django_filters.ChoiceFilter(method="_in_split", choices=Split.choices)
    bbox = BoxFilter(field_name="current__geometry")

    class Meta:
        model = Label
        fields: list[str] = []

    def _in_split(self, queryset: QuerySet[Label], name: str, value: str) -> QuerySet[Label]:
        region = "tile__region__campaignregion"
        return queryset.filter(**{f"{region}__split": value, f"{region}__campaign": F("campaign")})


class LabelViewSet(viewsets.ReadOnlyModelViewSet[Label]):
    """The geometry of record: each label's current revision. Retired labels only with `?state=retired`."""

    queryset = Label.objects.filter(current__isnull=False).select_related("campaign", "tile", "current__landform_class")
    serializer_class = LabelSerializer
    permission_classes = [LabelPermissions]
    pagination_class = NewestFirst
    filterset_class = LabelFilter
    related_bulk = ("current__geometry", "current__properties")

    def get_queryset(self) -> QuerySet[Label]:
        """Lists show what holds, unless asked otherwise."""
        labels = super().get_queryset()
        if self.action == "list" and "state" not in self.request.query_params:
            return labels.filter(current__state=LabelRevision.State.PRESENT)
        return labels

    @extend_schema(responses=LabelRevisionSerializer(many=True))
    @action(detail=True, pagination_class=None, filter_backends=[])
    def revisions(self, request: Request, pk: str) -> Response:
        """Every state the label ever had, oldest first."""
        rows = self.get_object().revisions.select_related("landform_class")
        return Response(LabelRevisionSerializer(rows, many=True).data)

    @extend_schema(request=ReviewSerializer, responses=LabelSerializer)
    @action(detail=True, methods=["post"])
    def review(self, request: Request, pk: str) -> Response:
        """Retire a label, bring it back, or change its class; it stands until its tile is submitted again."""
        asked = ReviewSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        review_label(self.get_object(), **asked.validated_data)
        return Response(self.get_serializer(self.get_object()).data)


class LabelImportSerializer(serializers.ModelSerializer[LabelImport]):
    campaign = serializers.SlugRelatedField("name", read_only=True)
    coverage = GeometryField(read_only=True)

    class Meta:
        model = LabelImport
        fields = [
            "id", "campaign", "file_name", "checksum", "fingerprint", "counts", "coverage", "created",
            "withdrawn", "withdrawn_reason",
        ]  # fmt: skip


class LabelImportInListSerializer(LabelImportSerializer):
    """Without its coverage, which may be as large as a coastline."""

    coverage = None  # type: ignore[assignment]

    class Meta(LabelImportSerializer.Meta):
        fields = [name for name in LabelImportSerializer.Meta.fields if name != "coverage"]


class WithdrawalSerializer(serializers.Serializer[Any]):
    """Why an import is withdrawn."""

    reason = serializers.CharField(max_length=300)


class MayWithdraw(ModelPermissions):
    """Reading needs the view permission, withdrawing its own."""

    perms_map = {**ModelPermissions.perms_map, "POST": ["labeling.withdraw_labelimport"]}


class LabelImportViewSet(viewsets.ReadOnlyModelViewSet[LabelImport]):
    """Imported label files; the detail view includes the coverage."""

    queryset = LabelImport.objects.select_related("campaign")
    serializer_class = LabelImportSerializer
    permission_classes = [MayWithdraw]

    @extend_schema(request=WithdrawalSerializer, responses=LabelImportSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Withdraw an import: its labels are retired with the reason, its coverage no longer counts."""
        wanted = WithdrawalSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(self.get_serializer(withdraw_import(self.get_object(), **wanted.validated_data)).data)

    def get_queryset(self) -> QuerySet[LabelImport]:
        """Lists leave coverages in the database."""
        rows = super().get_queryset()
        return rows.defer("coverage") if self.action == "list" else rows

    def get_serializer_class(self) -> type[LabelImportSerializer]:
        """Lists are short."""
        return LabelImportInListSerializer if self.action == "list" else LabelImportSerializer

    filterset_fields = {"campaign__name": ["exact"], "checksum": ["exact"]}
