"""What can go wrong between us and Label Studio, as sentences a person can act on."""

from thawloop.core.errors import Conflict, Refused, Unavailable


class BadAnnotation(Refused):
    """What should be an annotation is not one."""


class BadWebhook(Refused):
    """A request is not a webhook of Label Studio's that we know."""


class WrongSecret(BadWebhook):
    """A webhook came without our secret."""

    status_code = 403


class LabelStudioUnavailable(Unavailable):
    """Label Studio does not answer, or refuses our token."""


class LabelStudioRefused(Refused):
    """Label Studio declined the request."""


class LabelStudioMissing(LabelStudioRefused):
    """What was asked for does not exist in Label Studio (any more)."""


class ExchangeStopped(Conflict):
    """Label Studio reports something that a lead must confirm first."""


class ProjectGone(ExchangeStopped):
    """There is no project with the campaign's project number."""


class ForeignProject(ExchangeStopped):
    """The project with the campaign's project number is not the campaign's."""


class RemovalsUnconfirmed(ExchangeStopped):
    """More would be removed at once than is done without a lead's confirmation."""

    def __init__(self, sentence: str, count: int) -> None:
        super().__init__(sentence)
        self.count = count
