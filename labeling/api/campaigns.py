"""Classes, campaigns and batches over HTTP."""

from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from contracts.acquisition import STRATEGIES
from labeling.models import AcquisitionBatch, AnnotationTask
from labeling.services.batches import acquire
from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
from thawloop.campaigns.services import EDITABLE, change_campaign
from thawloop.core.api import JobSerializer
from thawloop.core.bulk import count_of, without_bulk
from thawloop.core.jobs import enqueue
from thawloop.core.permissions import ModelPermissions


class LandformClassSerializer(serializers.ModelSerializer[LandformClass]):
    class Meta:
        model = LandformClass
        fields = ["id", "name", "title", "color", "description"]


class LandformClassViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet[LandformClass]):
    """What is mapped."""

    queryset = LandformClass.objects.all()
    serializer_class = LandformClassSerializer


class CampaignSerializer(serializers.ModelSerializer[Campaign]):
    grid = serializers.SlugRelatedField("name", read_only=True)
    classes = serializers.SlugRelatedField("name", many=True, read_only=True)
    modalities = serializers.SerializerMethodField()
    regions = serializers.SerializerMethodField()
    tasks = serializers.SerializerMethodField()
    title = serializers.CharField(max_length=150, required=False)

    class Meta:
        model = Campaign
        fields = [
            "id", "name", "title", "state", "grid", "period", "period_start", "period_end", "classes", "modalities",
            "regions", "acquisition", "detector", "score_threshold",
            "split_buffer", "licence", "citation", "ls_project_id", "ls_synced_until",
            "ls_stopped", "ls_removals", "tasks", "created",
        ]  # fmt: skip
        read_only_fields = [name for name in fields if name not in EDITABLE]

    def get_modalities(self, campaign: Campaign) -> list[dict[str, Any]]:
        """Names in order, and what each is used for."""
        rows = campaign.campaign_modalities.all()
        flags = ("is_anchor", "is_shown", "is_model_input")
        return [{"name": row.modality.name} | {flag: getattr(row, flag) for flag in flags} for row in rows]

    def get_regions(self, campaign: Campaign) -> dict[str, str]:
        """Region → split."""
        return {row.region.name: row.split for row in campaign.campaign_regions.all()}

    def get_tasks(self, campaign: Campaign) -> dict[str, int]:
        """State → number of tasks."""
        return {state: getattr(campaign, f"tasks_{state}", 0) for state in AnnotationTask.State.values}


class SyncSerializer(serializers.Serializer[Any]):
    """How thoroughly to sync."""

    full = serializers.BooleanField(default=False, help_text="Compare every task, also those that did not change.")
    new_project = serializers.BooleanField(
        default=False, help_text="Leave a project that is gone, is not the campaign's or holds less than it did."
    )
    accept_removals = serializers.IntegerField(
        required=False, min_value=1, max_value=10_000_000, help_text="Believe so many removals: see `ls_removals`."
    )


class CampaignPermissions(ModelPermissions):
    """Syncing has a permission of its own."""

    perms_map = {**ModelPermissions.perms_map, "POST": ["campaigns.sync_campaign"]}


class CampaignViewSet(viewsets.ReadOnlyModelViewSet[Campaign]):
    """Annotation efforts. They are made from a campaign file; settings can be changed while they run."""

    queryset = Campaign.objects.select_related("grid").prefetch_related(
        "classes",
        Prefetch("campaign_modalities", CampaignModality.objects.select_related("modality")),
        Prefetch("campaign_regions", without_bulk(CampaignRegion.objects.select_related("region"))),
    )
    serializer_class = CampaignSerializer
    permission_classes = [CampaignPermissions]
    lookup_field = "name"
    filterset_fields = ["state"]

    def get_queryset(self) -> QuerySet[Campaign]:
        """With the number of tasks in each state."""
        states = {
            f"tasks_{state}": count_of(AnnotationTask, "campaign", Q(state=state))
            for state in AnnotationTask.State.values
        }
        return super().get_queryset().annotate(**states)

    @extend_schema(request=CampaignSerializer, responses=CampaignSerializer)
    def partial_update(self, request: Request, name: str) -> Response:
        """Change title, state, score threshold, acquisition or model settings."""
        campaign = self.get_object()
        asked = self.get_serializer(campaign, data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        change_campaign(campaign, **asked.validated_data)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(request=SyncSerializer, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    def sync(self, request: Request, name: str) -> Response:
        """Exchange tasks and annotations with Label Studio now, in the background."""
        asked = SyncSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        campaign = self.get_object()
        wanted = asked.validated_data
        chosen = {name: wanted[name] for name in ("new_project", "accept_removals") if wanted.get(name)}
        job = enqueue(
            "labeling.labelstudio.jobs.synchronise",
            # A running sync does not know what a lead has just decided.
            key=":".join(["sync", str(campaign.pk), *chosen]),
            args={"campaign": campaign.pk, "full": wanted["full"], **chosen},
        )
        return Response(JobSerializer(job).data, status=202)


class AcquisitionBatchSerializer(serializers.ModelSerializer[AcquisitionBatch]):
    campaign = serializers.SlugRelatedField("name", read_only=True)
    model_version = serializers.SlugRelatedField("name", read_only=True)
    tasks = serializers.IntegerField(source="task_count", read_only=True)

    class Meta:
        model = AcquisitionBatch
        fields = [
            "id", "campaign", "number", "strategy", "parameters", "seed", "model_version", "candidates", "tasks",
            "created",
        ]  # fmt: skip


class AcquireSerializer(serializers.Serializer[Any]):
    """Which batch is asked for; what is left out takes the campaign's settings."""

    campaign = serializers.SlugRelatedField(slug_field="name", queryset=Campaign.objects.all())
    count = serializers.IntegerField(min_value=1, max_value=100_000, required=False, help_text="Tiles, both arms.")
    strategy = serializers.ChoiceField(STRATEGIES, required=False)
    seed = serializers.IntegerField(min_value=0, max_value=2**53, required=False)


class AcquisitionBatchViewSet(viewsets.ReadOnlyModelViewSet[AcquisitionBatch]):
    """Tiles chosen in one go, and how. POST asks for the next batch."""

    queryset = AcquisitionBatch.objects.select_related("campaign", "model_version").annotate(
        task_count=count_of(AnnotationTask, "batch")
    )
    serializer_class = AcquisitionBatchSerializer
    filterset_fields = {"campaign__name": ["exact"], "strategy": ["exact"]}

    @extend_schema(request=AcquireSerializer, responses={202: JobSerializer})
    def create(self, request: Request) -> Response:
        """Have the next tiles chosen, in the background. While one batch is being chosen, its job is returned."""
        asked = AcquireSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        return Response(JobSerializer(acquire(**asked.validated_data)).data, status=202)
