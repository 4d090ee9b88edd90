"""The secrets by which Label Studio authenticates itself: one for its webhooks, another for the ML backend.

Label Studio shows a webhook's headers to every annotator, so what the webhook's secret lets in is only a hint, and it
must not open anything else. Both can be replaced: `manage.py rotate_secrets` counts a rotation, from which new values
follow (by HMAC with DJANGO_SECRET_KEY), in all processes at once and without a restart.
"""

from django.conf import settings
from django.db import transaction
from django.utils.crypto import salted_hmac

from labeling.models import SecretRotation
from thawloop.core.context import current_actor
from thawloop.core.services import audit


def webhook_secret() -> str:
    """The secret that webhooks must carry; empty while none is set, and then all are refused."""
    configured = settings.THAWLOOP_WEBHOOK_SECRET
    return _rotated("webhook", configured) if configured else ""


def ml_backend_secret() -> str:
    """The password of the ML backend; without one set, it follows from DJANGO_SECRET_KEY."""
    return _rotated("ml_backend", settings.THAWLOOP_ML_BACKEND_SECRET or _derived("ml_backend", ""))


def rotate_secrets(reason: str = "") -> SecretRotation:
    """Replace both secrets. Requests with the old ones are refused from now on; a sync finds what was missed.

    `ensure_project`, which every sync calls where they are outdated, sends the new ones to projects in Label Studio.
    """
    with transaction.atomic():
        rotation = SecretRotation.objects.create(created_by=current_actor().user, reason=reason[:300])
        audit("labeling.rotate_secrets", rotation, reason=reason)
    return rotation


def _rotated(purpose: str, configured: str) -> str:
    count = SecretRotation.objects.count()
    return _derived(purpose, f"{count}:{configured}") if count else configured


def _derived(purpose: str, value: str) -> str:
    return salted_hmac(f"labeling.{purpose}", value, algorithm="sha256").hexdigest()
