"""Predictions, tasks, annotations and labels."""

from labeling.models.labels import Annotation, Label, LabelImport, LabelRevision
from labeling.models.predictions import PredictedInstance, Prediction
from labeling.models.secrets import SecretRotation
from labeling.models.tasks import AcquisitionBatch, AnnotationTask, Preannotation, WebhookEvent

__all__ = [
    "AcquisitionBatch",
    "Annotation",
    "AnnotationTask",
    "Label",
    "LabelImport",
    "LabelRevision",
    "Preannotation",
    "PredictedInstance",
    "Prediction",
    "SecretRotation",
    "WebhookEvent",
]
