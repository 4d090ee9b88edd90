"""The training room over HTTP: who may do what, and which service does it."""

from typing import Any

from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from thawloop.core.permissions import ModelPermissions
from thawloop.registry import services as registry
from thawloop.registry.models import ModelVersion, Promotion
from thawloop.training import services
from thawloop.training.api.serializers import (
    EvaluationSerializer,
    ModelVersionSerializer,
    PromotionSerializer,
    ReasonSerializer,
    RetrainingSerializer,
    RetrainPolicySerializer,
    StartSerializer,
    TrainingRunSerializer,
)
from thawloop.training.models import Evaluation, Retraining, RetrainPolicy, TrainingRun
from thawloop.training.selectors import CampaignState, explain_policy, learning_curve, outlook


class _Permitted(ModelPermissions):
    """Reading as everywhere; every change needs one named permission."""

    permission = ""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return super().has_permission(request, view)
        return bool(request.user and request.user.is_authenticated and request.user.has_perm(self.permission))


class MayRetrain(_Permitted):
    """Starting and cancelling retraining."""

    permission = "training.start_retraining"


class MayPromote(_Permitted):
    """Choosing the champion."""

    permission = "registry.promote_modelversion"


class RetrainPolicyViewSet(
    mixins.CreateModelMixin, mixins.UpdateModelMixin, viewsets.ReadOnlyModelViewSet[RetrainPolicy]
):
    """Retrain policies, one per campaign; `explain` says why a campaign retrains now, or why not."""

    queryset = RetrainPolicy.objects.select_related("campaign").order_by("id")
    serializer_class = RetrainPolicySerializer
    filterset_fields = ["campaign__name", "enabled"]

    def perform_create(self, serializer: Any) -> None:
        """Give a campaign its policy, or change the one it has."""
        values = dict(serializer.validated_data)
        serializer.instance = services.set_policy(values.pop("campaign"), **values)

    def perform_update(self, serializer: Any) -> None:
        """Change a policy; it stays with its campaign."""
        values = {name: value for name, value in serializer.validated_data.items() if name != "campaign"}
        serializer.instance = services.set_policy(serializer.instance.campaign, **values)

    @extend_schema(
        responses=inline_serializer(
            "PolicyExplanation",
            {
                "due": serializers.BooleanField(),
                "reasons": serializers.ListField(child=serializers.CharField()),
                "new_tiles": serializers.IntegerField(),
                "new_labels": serializers.IntegerField(),
                "needed_tiles": serializers.IntegerField(),
                "needed_labels": serializers.IntegerField(),
                "blocking": serializers.ListField(child=serializers.CharField()),
            },
        )
    )
    @action(detail=True)
    def explain(self, request: Request, pk: str) -> Response:
        """Why retrain now, or why not."""
        return Response(explain_policy(CampaignState(self.get_object().campaign)).to_json())

    @extend_schema(responses={200: dict[str, Any]})
    @action(detail=True)
    def outlook(self, request: Request, pk: str) -> Response:
        """What a retraining would do if it began now."""
        return Response(outlook(CampaignState(self.get_object().campaign)).to_json())

    @extend_schema(responses={200: list[dict[str, Any]]})
    @action(detail=True, url_path="learning-curve")
    def learning_curve(self, request: Request, pk: str) -> Response:
        """What each retraining brought."""
        return Response([vars(point) for point in learning_curve(self.get_object().campaign)])


class RetrainingViewSet(viewsets.ReadOnlyModelViewSet[Retraining]):
    """Retrainings: POST starts one (409 while one is running), `cancel` ends it, `retry` goes on with a failed one."""

    queryset = Retraining.objects.select_related("campaign", "release", "model_version", "requested_by")
    serializer_class = RetrainingSerializer
    permission_classes = [MayRetrain]
    filterset_fields = ["campaign__name", "state", "promoted"]
    throttle_scope = "expensive"

    def get_throttles(self) -> list[Any]:
        """Only changes are throttled."""
        return [] if self.request.method in ("GET", "HEAD", "OPTIONS") else super().get_throttles()

    @extend_schema(request=StartSerializer, responses={201: RetrainingSerializer})
    def create(self, request: Request) -> Response:
        """Start a retraining."""
        asked = StartSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        started = services.start_retraining(**asked.validated_data)
        return self._answer(started, status.HTTP_201_CREATED)

    @extend_schema(request=ReasonSerializer, responses=RetrainingSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """End a retraining and stop its jobs."""
        return self._answer(services.cancel_retraining(self.get_object(), reason=_reason(request)))

    @extend_schema(request=None, responses=RetrainingSerializer)
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Go on with a failed or cancelled retraining where it stopped."""
        return self._answer(services.retry_retraining(self.get_object()))

    def _answer(self, retraining: Retraining, code: int = status.HTTP_200_OK) -> Response:
        return Response(self.get_serializer(self.get_queryset().get(pk=retraining.pk)).data, status=code)


class ModelVersionViewSet(viewsets.ReadOnlyModelViewSet[ModelVersion]):
    """The model registry, by name; `promote` makes a version champion, `rollback` brings the previous one back."""

    queryset = ModelVersion.objects.select_related("campaign", "parent", "release").prefetch_related("aliases")
    serializer_class = ModelVersionSerializer
    permission_classes = [MayPromote]
    lookup_field = "name"
    filterset_fields = ["campaign__name", "aliases__alias"]

    @extend_schema(request=ReasonSerializer, responses={201: PromotionSerializer})
    @action(detail=True, methods=["post"])
    def promote(self, request: Request, name: str) -> Response:
        """Make this version its campaign's champion."""
        promotion = registry.promote(self.get_object(), reason=_reason(request))
        return Response(PromotionSerializer(promotion).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=ReasonSerializer, responses={201: PromotionSerializer})
    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, name: str) -> Response:
        """Bring back the champion before the current one, in this version's campaign."""
        promotion = registry.rollback(self.get_object().campaign, reason=_reason(request))
        return Response(PromotionSerializer(promotion).data, status=status.HTTP_201_CREATED)


class TrainingRunViewSet(viewsets.ReadOnlyModelViewSet[TrainingRun]):
    """Trainings: configuration, metrics and cost."""

    queryset = TrainingRun.objects.select_related("modality")
    serializer_class = TrainingRunSerializer
    filterset_fields = ["retraining", "stage", "retraining__campaign__name"]


class EvaluationViewSet(viewsets.ReadOnlyModelViewSet[Evaluation]):
    """Evaluations on held-out tiles."""

    queryset = Evaluation.objects.select_related("model_version", "release")
    serializer_class = EvaluationSerializer
    filterset_fields = ["model_version__name", "split", "model_version__campaign__name"]


class PromotionViewSet(viewsets.ReadOnlyModelViewSet[Promotion]):
    """Every change of champion, and why."""

    queryset = Promotion.objects.select_related("campaign", "previous", "champion", "actor")
    serializer_class = PromotionSerializer
    filterset_fields = ["campaign__name", "kind"]


def _reason(request: Request) -> str:
    asked = ReasonSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    return str(asked.validated_data["reason"])
