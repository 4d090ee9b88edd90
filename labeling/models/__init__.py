"""Who says what is where: campaigns, predictions, tasks, annotations and labels."""

from labeling.models.campaigns import Campaign, CampaignModality, CampaignRegion, LandformClass, SecretRotation, Split
from labeling.models.labels import Annotation, Label, LabelImport, LabelRevision
from labeling.models.predictions import PredictedInstance, Prediction
from labeling.models.tasks import AcquisitionBatch, AnnotationTask, Preannotation, WebhookEvent

__all__ = [
    "AcquisitionBatch",
    "Annotation",
    "AnnotationTask",
    "Campaign",
    "CampaignModality",
    "CampaignRegion",
    "Label",
    "LabelImport",
    "LabelRevision",
    "LandformClass",
    "Preannotation",
    "PredictedInstance",
    "Prediction",
    "SecretRotation",
    "Split",
    "WebhookEvent",
]
