"""Tasks, annotations and predictions over HTTP."""

import django_filters
from django.db.models import QuerySet
from rest_framework import serializers, viewsets
from rest_framework_gis.fields import GeometryField

from labeling.models import Annotation, AnnotationTask, PredictedInstance, Prediction
from thawloop.catalog.api import BoxFilter
from thawloop.core.pagination import NewestFirst


class AnnotationTaskSerializer(serializers.ModelSerializer[AnnotationTask]):
    campaign = serializers.SlugRelatedField("name", read_only=True)
    tile = serializers.SlugRelatedField("key", read_only=True)
    batch = serializers.IntegerField(source="batch.number", read_only=True, allow_null=True, default=None)
    model_version = serializers.CharField(
        source="prediction.model_version.name", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = AnnotationTask
        fields = [
            "id", "campaign", "tile", "batch", "arm", "rank", "score", "score_parts", "model_version", "state",
            "ls_task_id", "created", "updated",
        ]  # fmt: skip


class AnnotationTaskViewSet(viewsets.ReadOnlyModelViewSet[AnnotationTask]):
    """Tiles given to annotators."""

    queryset = AnnotationTask.objects.select_related("campaign", "tile", "batch", "prediction__model_version")
    serializer_class = AnnotationTaskSerializer
    pagination_class = NewestFirst
    filterset_fields = {
        "campaign__name": ["exact"],
        "state": ["exact"],
        "arm": ["exact"],
        "batch__number": ["exact"],
        "tile__key": ["exact"],
    }


class AnnotationSerializer(serializers.ModelSerializer[Annotation]):
    tile = serializers.CharField(source="task.tile.key", read_only=True)
    is_current = serializers.SerializerMethodField()
    model_version = serializers.CharField(
        source="prediction.model_version.name", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = Annotation
        fields = [
            "id", "task", "tile", "ls_annotation_id", "ls_updated_at", "kind", "annotator_name", "lead_time",
            "model_version", "correction_iou", "problems", "mended", "supersedes", "is_current", "result", "created",
        ]  # fmt: skip

    def get_is_current(self, annotation: Annotation) -> bool:
        """Whether no newer row supersedes it."""
        return not hasattr(annotation, "superseded_by")


class AnnotationFilter(django_filters.FilterSet):
    campaign = django_filters.CharFilter(field_name="task__campaign__name")
    tile = django_filters.CharFilter(field_name="task__tile__key")
    has_problems = django_filters.BooleanFilter(field_name="problems", method="_with_problems")

    class Meta:
        model = Annotation
        fields = ["task", "kind", "annotator_name"]

    def _with_problems(self, queryset: QuerySet[Annotation], name: str, value: bool) -> QuerySet[Annotation]:
        return queryset.exclude(problems=[]) if value else queryset.filter(problems=[])


class AnnotationViewSet(viewsets.ReadOnlyModelViewSet[Annotation]):
    """What annotators submitted, every state of it."""

    queryset = Annotation.objects.select_related("task__tile", "prediction__model_version", "superseded_by")
    serializer_class = AnnotationSerializer
    filterset_class = AnnotationFilter


class PredictedInstanceSerializer(serializers.ModelSerializer[PredictedInstance]):
    landform_class = serializers.SlugRelatedField("name", read_only=True)
    geometry = GeometryField(read_only=True)

    class Meta:
        model = PredictedInstance
        fields = [
            "region_id", "landform_class", "score", "stage_scores", "mask_entropy", "class_entropy", "geometry",
        ]  # fmt: skip


class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    tile = serializers.SlugRelatedField("key", read_only=True)
    model_version = serializers.SlugRelatedField("name", read_only=True)
    instances = PredictedInstanceSerializer(many=True, read_only=True)

    class Meta:
        model = Prediction
        fields = [
            "id", "tile", "model_version", "uncertainty", "uncertainty_parts", "seconds", "instances", "created",
        ]  # fmt: skip


class PredictionFilter(django_filters.FilterSet):
    model_version = django_filters.CharFilter(field_name="model_version__name")
    tile = django_filters.CharFilter(field_name="tile__key")
    bbox = BoxFilter(field_name="tile__geometry")

    class Meta:
        model = Prediction
        fields: list[str] = []


class PredictionViewSet(viewsets.ReadOnlyModelViewSet[Prediction]):
    """What models said about tiles."""

    queryset = (
        Prediction.objects.defer("embedding")
        .select_related("tile", "model_version")
        .prefetch_related("instances__landform_class")
    )
    serializer_class = PredictionSerializer
    filterset_class = PredictionFilter
