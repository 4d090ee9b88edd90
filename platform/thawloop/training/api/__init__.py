"""The training room over HTTP. The router is in `thawloop.dashboard.api_urls`."""

from thawloop.training.api.views import (
    EvaluationViewSet,
    ModelVersionViewSet,
    PromotionViewSet,
    RetrainingViewSet,
    RetrainPolicyViewSet,
    TrainingRunViewSet,
)

__all__ = [
    "EvaluationViewSet",
    "ModelVersionViewSet",
    "PromotionViewSet",
    "RetrainPolicyViewSet",
    "RetrainingViewSet",
    "TrainingRunViewSet",
]
