"""Pictures over HTTP."""

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseBase,
    HttpResponseForbidden,
    HttpResponseNotModified,
)
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from thawloop.catalog.errors import ChipUnreadable
from thawloop.catalog.models import Modality, Tile
from thawloop.catalog.pictures import SMALL_SIDES, drawn, is_signed, picture_key, picture_size

_FRESH_SECONDS = 5 * 60


@require_safe
def picture(request: HttpRequest, key: str, modality: str) -> HttpResponseBase:
    """One tile in one modality as PNG, for whoever has its signed address or may look at tiles.

    Label Studio's canvas reads the pixels (brush, zoom), so every origin may.
    """
    signed = is_signed(key, modality, request.GET.get("s", ""))
    if not signed and not request.user.has_perm("catalog.view_tile"):
        return HttpResponseForbidden("The address of this picture is not complete: copy it from its task.")
    tile = get_object_or_404(Tile.objects.select_related("grid"), key=key)
    shown = get_object_or_404(Modality.objects.select_related("source"), name=modality)
    return serve_picture(request, tile, shown, shared=signed)


def serve_picture(request: HttpRequest, tile: Tile, modality: Modality, *, shared: bool) -> HttpResponseBase:
    """A picture for somebody who may see it, in full or as small as `?size=` says.

    Args:
        request: For its `size` and the picture it has already (`If-None-Match`).
        tile: With its grid.
        modality: With its source.
        shared: The address itself lets in whoever has it: proxies may keep the picture for others, and every origin may
            read it. Otherwise it is for this browser alone.
    """
    size = request.GET.get("size", "")
    if size and size not in map(str, SMALL_SIDES):
        return HttpResponseBadRequest(f"A small picture's size is one of {', '.join(map(str, SMALL_SIDES))}.")
    side = int(size) if size else picture_size(tile)
    key = picture_key(tile, modality, side)
    etag = f'"{key}"'
    if etag in request.headers.get("If-None-Match", ""):
        response: HttpResponse = HttpResponseNotModified()
    else:
        try:
            response = HttpResponse(drawn(tile, modality, side, key), content_type="image/png")
        except ChipUnreadable as error:
            return HttpResponse(str(error), content_type="text/plain", status=error.status_code)
    response["ETag"] = etag
    # A corrected scene is seen after minutes: asking again costs an answer without a picture.
    response["Cache-Control"] = f"{'public' if shared else 'private'}, max-age={_FRESH_SECONDS}"
    if shared:
        response["Access-Control-Allow-Origin"] = "*"
        response["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response
