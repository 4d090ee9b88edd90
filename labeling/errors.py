"""Refusals of the labeling room."""

from thawloop.core.errors import Conflict, Refused


class BadWithdrawal(Refused):
    """A label import cannot be withdrawn as asked."""


class AlreadyWithdrawn(Conflict):
    """A label import was already withdrawn."""


class BadReview(Refused):
    """A reviewer's decision that changes nothing or is not possible."""
