"""Refusals of the labeling room."""

from thawloop.core.errors import Conflict, Refused


class BadWithdrawal(Refused):
    """A label import cannot be taken back so."""


class AlreadyWithdrawn(Conflict):
    """A label import was taken back before."""


class BadReview(Refused):
    """A reviewer's decision that changes nothing or cannot be."""
