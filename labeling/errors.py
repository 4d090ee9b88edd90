"""Refusals of the labeling room."""

from thawloop.core.errors import Conflict, Refused


class BadAnnotation(Refused):
    """What should be an annotation is not one."""


class BadWebhook(Refused):
    """What came in is not a webhook of Label Studio's that we know."""


class WrongSecret(BadWebhook):
    """A webhook came without our secret."""

    status_code = 403


class BadWithdrawal(Refused):
    """A label import cannot be taken back so."""


class AlreadyWithdrawn(Conflict):
    """A label import was taken back before."""


class BadReview(Refused):
    """A reviewer's decision that changes nothing or cannot be."""
