"""What can go wrong between us and Label Studio, as sentences a person can act on."""

from thawloop.core.errors import Conflict, Refused, Unavailable


class BadAnnotation(Refused):
    """What should be an annotation is not one."""


class BadWebhook(Refused):
    """What came in is not a webhook of Label Studio's that we know."""


class WrongSecret(BadWebhook):
    """A webhook came without our secret."""

    status_code = 403


class LabelStudioUnavailable(Unavailable):
    """Label Studio does not answer, or not to us."""


class LabelStudioRefused(Refused):
    """Label Studio understood the request and declined it."""


class LabelStudioMissing(LabelStudioRefused):
    """What was asked for does not exist in Label Studio (any more)."""


class ExchangeStopped(Conflict):
    """Label Studio says something that is not believed before a lead has looked at it."""


class ProjectGone(ExchangeStopped):
    """There is no project of the campaign's number."""


class ForeignProject(ExchangeStopped):
    """The project of the campaign's number is not the campaign's."""


class RemovalsUnconfirmed(ExchangeStopped):
    """More would be taken back at once than is believed."""

    def __init__(self, sentence: str, count: int) -> None:
        super().__init__(sentence)
        self.count = count
