"""Who is acting in which request, for the audit trail, the jobs they cause and the logs."""

import re
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

from thawloop.core.context import acting_in_request, new_request_id

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestContextMiddleware:
    """Bind the request's user and id while it is handled. Comes after authentication and django-structlog.

    The id is the caller's `X-Request-ID` (django-structlog reads it) when it is a harmless one, else a new one; the
    answer carries it too.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
        if not _HARMLESS.fullmatch(request_id):
            request_id = new_request_id()
            structlog.contextvars.bind_contextvars(request_id=request_id)
        with acting_in_request(request, request_id):
            response = self.get_response(request)
        response["X-Request-ID"] = request_id
        return response
