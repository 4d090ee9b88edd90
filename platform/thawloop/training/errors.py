"""Refusals of the training room."""

from thawloop.core.errors import Conflict, Refused


class RetrainingRefused(Refused):
    """A retraining cannot begin or go on as things are."""


class RetrainingConflict(Conflict):
    """Another retraining, or its end, stands in the way."""
