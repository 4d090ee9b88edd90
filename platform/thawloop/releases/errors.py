"""Refusals of the releases room."""

from thawloop.catalog.errors import VectorFileRefused
from thawloop.core.errors import Conflict, Refused


class LabelFileRefused(VectorFileRefused):
    """A label file cannot be imported; nothing was written."""


class ReleaseRefused(Refused):
    """A release cannot be frozen or its files cannot be written."""


class ReleaseConflict(Conflict):
    """A release cannot be frozen now: nothing changed, or another one is being frozen."""


class ExportRefused(Refused):
    """An export cannot be written; nothing was left behind."""
