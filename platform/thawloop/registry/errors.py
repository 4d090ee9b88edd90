"""Refusals of the registry."""

from thawloop.core.errors import Conflict, Refused


class ModelRefused(Refused):
    """A checkpoint or model version cannot be used for what was asked."""


class PromotionConflict(Conflict):
    """The champion cannot be changed as asked."""
