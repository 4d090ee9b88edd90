"""Where Label Studio's webhooks arrive."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from labeling.labelstudio.webhooks import MAX_BODY_BYTES, receive_webhook
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused


@csrf_exempt
@require_POST
def webhook(request: HttpRequest, campaign: str) -> JsonResponse:
    """Store a webhook and answer at once: Label Studio's annotators wait for it."""
    found = Campaign.objects.filter(name=campaign).first()
    if found is None:
        return JsonResponse({"detail": f"There is no campaign {campaign!r}."}, status=404)
    body = request.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        return JsonResponse({"detail": f"The body is larger than {MAX_BODY_BYTES:,} bytes."}, status=413)
    try:
        event = receive_webhook(found, body, request.headers)
    except Refused as error:
        return JsonResponse({"detail": str(error)}, status=error.status_code)
    return JsonResponse({"event": event.pk}, status=202)
