"""The labeling room over HTTP. The router is in `thawloop.dashboard.api_urls`."""

from labeling.api.campaigns import AcquisitionBatchViewSet, CampaignViewSet, LandformClassViewSet
from labeling.api.labels import LabelImportViewSet, LabelViewSet
from labeling.api.tasks import AnnotationTaskViewSet, AnnotationViewSet, PredictionViewSet

__all__ = [
    "AcquisitionBatchViewSet",
    "AnnotationTaskViewSet",
    "AnnotationViewSet",
    "CampaignViewSet",
    "LabelImportViewSet",
    "LabelViewSet",
    "LandformClassViewSet",
    "PredictionViewSet",
]
