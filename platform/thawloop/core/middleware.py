"""Who is acting in which request, for the audit trail and the jobs they cause."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from thawloop.core.context import acting


class RequestContextMiddleware:
    """Bind the request's user and id while it is handled. Comes after authentication and django-structlog."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with acting(user=request.user, request_id=request.headers.get("X-Request-ID")):
            return self.get_response(request)
