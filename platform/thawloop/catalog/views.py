"""Pictures over HTTP."""

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseForbidden, HttpResponseNotModified
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from thawloop.catalog.errors import ChipUnreadable
from thawloop.catalog.models import Modality, Tile
from thawloop.catalog.pictures import is_signed, picture_etag, render

_DAY = 24 * 60 * 60


@require_safe
def picture(request: HttpRequest, key: str, modality: str) -> HttpResponseBase:
    """One tile in one modality as PNG, for whoever has its signed address or may look at tiles.

    Label Studio's canvas reads the pixels (brush, zoom), so every origin may.
    """
    if not is_signed(key, modality, request.GET.get("s", "")) and not request.user.has_perm("catalog.view_tile"):
        return HttpResponseForbidden("The address of this picture is not complete: copy it from its task.")
    tile = get_object_or_404(Tile.objects.select_related("grid"), key=key)
    shown = get_object_or_404(Modality.objects.select_related("source"), name=modality)
    etag = picture_etag(tile, shown)
    if etag in request.headers.get("If-None-Match", ""):
        response: HttpResponse = HttpResponseNotModified()
    else:
        try:
            response = HttpResponse(render(tile, shown), content_type="image/png")
        except ChipUnreadable as error:
            return HttpResponse(str(error), content_type="text/plain", status=error.status_code)
    response["ETag"] = etag
    response["Cache-Control"] = f"public, max-age={_DAY}, stale-while-revalidate={7 * _DAY}"
    response["Access-Control-Allow-Origin"] = "*"
    response["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response
