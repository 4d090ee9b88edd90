"""What every request goes through: who acts (for audit trail, jobs and logs), what browsers may load, refusals."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from thawloop.core.context import acting_in_request, new_request_id
from thawloop.core.errors import Refused

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


class ContentSecurityPolicyMiddleware:
    """Tell browsers to run and load only what comes from here, and to show our pages in nobody's frame.

    The admin's own pages (Alpine.js, Django's map widget) need inline scripts and `eval`; ours and the API's need
    neither. Pictures have the address of THAWLOOP_URL, which may differ from the one a person typed.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if "Content-Security-Policy" not in response:
            response["Content-Security-Policy"] = self._policy(request)
        return response

    def _policy(self, request: HttpRequest) -> str:
        match = request.resolver_match
        scripts = "'self' 'unsafe-inline' 'unsafe-eval'" if match and match.namespace == "admin" else "'self'"
        outside = urlsplit(settings.THAWLOOP_URL)
        return "; ".join(
            [
                "default-src 'self'",
                f"script-src {scripts}",
                "style-src 'self' 'unsafe-inline'",
                f"img-src 'self' data: blob: {outside.scheme}://{outside.netloc}",
                "font-src 'self' data:",
                "object-src 'none'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            ]
        )


class RefusalMiddleware:
    """Pages say in one sentence why something is refused, as the API does."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A page for refusals that no view answers itself, such as a log-in that comes too soon."""
        if not isinstance(error, Refused):
            return None
        response = render(request, "core/refused.html", {"sentence": str(error)}, status=error.status_code)
        if wait := getattr(error, "wait", None):
            response["Retry-After"] = str(wait)
        return response
