"""Refusals: mistakes that a person can correct. Each is one sentence: what was wrong, where, and what to do."""

from typing import TYPE_CHECKING, Any

from rest_framework import status

from contracts.sentences import one_sentence

if TYPE_CHECKING:
    from rest_framework.response import Response


class Refused(Exception):
    """What was asked cannot be done; the message says why and what to do. Nothing was changed."""

    status_code: int = status.HTTP_400_BAD_REQUEST

    def __str__(self) -> str:
        """One line, whatever the sentence quotes."""
        return one_sentence(super().__str__())


class Conflict(Refused):
    """It cannot be done now, because something else is going on or was already done."""

    status_code: int = status.HTTP_409_CONFLICT


class Unavailable(Refused):
    """A service we depend on does not answer."""

    status_code: int = status.HTTP_503_SERVICE_UNAVAILABLE


def api_exception_handler(error: Exception, context: dict[str, Any]) -> "Response | None":
    """Answer refusals, and values that the database cannot hold, with a sentence; leave the rest to the framework."""
    # Imported late: these modules read the settings, and refusals must be raisable before there are any.
    from django.db import DataError
    from rest_framework.response import Response
    from rest_framework.views import exception_handler

    if isinstance(error, Refused):
        wait = getattr(error, "wait", None)
        headers = {"Retry-After": str(wait)} if wait else None
        return Response({"detail": str(error)}, status=error.status_code, headers=headers)
    if isinstance(error, RecursionError):  # JSON within JSON within JSON
        return Response({"detail": "What was sent is nested too deeply."}, status=status.HTTP_400_BAD_REQUEST)
    if isinstance(error, DataError):  # NUL in a name, a number out of range: nothing was written
        return Response({"detail": f"A value cannot be used: {error}."}, status=status.HTTP_400_BAD_REQUEST)
    return exception_handler(error, context)
