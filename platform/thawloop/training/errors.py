"""Refusals of the training room."""

from thawloop.core.errors import Conflict, Refused


class RetrainingRefused(Refused):
    """A retraining cannot begin or go on as things are."""


class RetrainingConflict(Conflict):
    """Another retraining, or its end, stands in the way."""


class ModelRefused(Refused):
    """A checkpoint or model version cannot be used for what was asked."""


class PromotionConflict(Conflict):
    """The champion cannot change that way."""
