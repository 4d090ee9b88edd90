"""What can go wrong between us and Label Studio, as sentences a person can act on."""

from thawloop.core.errors import Conflict, Refused, Unavailable


class LabelStudioUnavailable(Unavailable):
    """Label Studio does not answer, or not to us."""


class LabelStudioRefused(Refused):
    """Label Studio understood the request and declined it."""


class LabelStudioMissing(LabelStudioRefused):
    """What was asked for does not exist in Label Studio (any more)."""


class ProjectGone(Conflict):
    """The campaign's project was deleted in Label Studio."""
