"""Liveness and health."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from thawloop.core.selectors import health


@require_safe
@never_cache
def alive(request: HttpRequest) -> HttpResponse:
    """The web process answers; nothing else is checked."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def healthy(request: HttpRequest) -> JsonResponse:
    """Check every component; 503 when a required one is not ok. Details are for people who are logged in."""
    components = health()
    well = all(component["ok"] for component in components.values() if component["required"])
    if not request.user.is_authenticated:
        for component in components.values():
            del component["detail"]
    status = "ok" if well and all(component["ok"] for component in components.values()) else "degraded"
    return JsonResponse(
        {"status": status if well else "unavailable", "components": components}, status=200 if well else 503
    )
