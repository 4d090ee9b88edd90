"""Refusals of the labeling room."""

from thawloop.core.errors import Refused


class BadAnnotation(Refused):
    """What should be an annotation is not one."""


class BadWebhook(Refused):
    """What came in is not a webhook of Label Studio's that we know."""


class WrongSecret(BadWebhook):
    """A webhook came without our secret."""

    status_code = 403


class BadCampaign(Refused):
    """A campaign cannot be as it is asked for."""
