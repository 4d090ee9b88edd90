"""How the training room's rows look over HTTP."""

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from thawloop.campaigns.models import Campaign
from thawloop.registry.models import ModelVersion, Promotion
from thawloop.training.models import Evaluation, Retraining, RetrainPolicy, TrainingRun


class CampaignField(serializers.SlugRelatedField[Campaign]):
    """A campaign by its name."""

    def __init__(self, **kwargs: Any) -> None:
        if not kwargs.get("read_only"):
            kwargs.setdefault("queryset", Campaign.objects.all())
        super().__init__(slug_field="name", **kwargs)


class Named(serializers.SlugRelatedField[Any]):
    """Another row by its name, to read."""

    def __init__(self, slug_field: str, **kwargs: Any) -> None:
        super().__init__(slug_field=slug_field, read_only=True, **kwargs)


@extend_schema_serializer(component_name="RequiredReason")  # core's may be left out
class ReasonSerializer(serializers.Serializer[Any]):
    """Why somebody does something."""

    reason = serializers.CharField(max_length=1000)


class StartSerializer(serializers.Serializer[Any]):
    """What a retraining is to be begun with."""

    campaign = CampaignField()
    reason = serializers.CharField(max_length=1000)
    seed = serializers.IntegerField(min_value=0, required=False, allow_null=True, default=None)


class RetrainPolicySerializer(serializers.ModelSerializer[RetrainPolicy]):
    """When a campaign retrains by itself."""

    campaign = CampaignField()

    class Meta:
        model = RetrainPolicy
        fields = [
            "id",
            "campaign",
            "enabled",
            "min_new_tiles",
            "min_new_labels",
            "cooldown_minutes",
            "gate_min_gain",
        ]
        extra_kwargs: dict[str, Any] = {"campaign": {"validators": []}}


class RetrainingSerializer(serializers.ModelSerializer[Retraining]):
    """One turn from labels to a (perhaps promoted) model."""

    campaign = CampaignField(read_only=True)
    release = Named("version")
    model_version = Named("name")
    requested_by = Named("username")

    class Meta:
        model = Retraining
        fields = [
            "id",
            "campaign",
            "number",
            "state",
            "reason",
            "release",
            "seed",
            "model_version",
            "promoted",
            "verdict",
            "error",
            "requested_by",
            "created",
            "finished",
        ]
        read_only_fields = fields


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    """How a model did on the test tiles of a release."""

    model_version = Named("name")
    release = Named("version")

    class Meta:
        model = Evaluation
        fields = ["id", "model_version", "release", "split", "ap", "ap50", "ap30", "metrics", "created"]
        read_only_fields = fields


class ModelVersionSerializer(serializers.ModelSerializer[ModelVersion]):
    """A checkpoint in the registry, with its card."""

    campaign = CampaignField(read_only=True)
    parent = Named("name")  # type: ignore[assignment]  # a field called parent, as in the model
    release = Named("version")
    aliases = Named("alias", many=True)

    class Meta:
        model = ModelVersion
        fields = [
            "id",
            "name",
            "number",
            "campaign",
            "aliases",
            "parent",
            "release",
            "retraining",
            "path",
            "checksum",
            "card",
            "created",
        ]
        read_only_fields = fields


class TrainingRunSerializer(serializers.ModelSerializer[TrainingRun]):
    """One pretraining or fine-tuning: what it was asked, gave and cost."""

    modality = Named("name")

    class Meta:
        model = TrainingRun
        fields = [
            "id",
            "retraining",
            "stage",
            "modality",
            "job",
            "config",
            "init",
            "seed",
            "path",
            "metrics",
            "seconds",
            "peak_memory_mb",
            "device",
            "created",
            "finished",
        ]
        read_only_fields = fields


class PromotionSerializer(serializers.ModelSerializer[Promotion]):
    """A change of champion, and why."""

    campaign = CampaignField(read_only=True)
    previous = Named("name")
    champion = Named("name")
    actor = Named("username")

    class Meta:
        model = Promotion
        fields = ["id", "campaign", "kind", "previous", "champion", "reason", "actor", "created"]
        read_only_fields = fields
