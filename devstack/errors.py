"""What can go wrong with one machine's services, each as a sentence with its remedy."""

from thawloop.core.errors import Refused


class LocalServiceError(Refused):
    """A local service could not be found, started or reached."""

    def __str__(self) -> str:
        """Lines as they are: the end of a log may stand below the sentence."""
        return Exception.__str__(self)


class ServiceMissing(LocalServiceError):
    """The programs of a service are not installed."""


class ServiceFailed(LocalServiceError):
    """A service was started but did not come up, or went away."""


class PortTaken(LocalServiceError):
    """A port that was asked for by number is in use by another program."""


class AlreadyRunning(LocalServiceError):
    """Another process of ours keeps the same folder."""
