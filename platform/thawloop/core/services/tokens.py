"""Tokens for the API: made, used, withdrawn."""

import secrets
from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from thawloop.core.errors import Refused
from thawloop.core.models import ApiToken
from thawloop.core.services.auditing import audit

LONGEST_DAYS = 366
MOST_PER_ACCOUNT = 50
_LAST_USED_PRECISION = timedelta(hours=1)


def make_token(
    user: Any, *, days: int | None = None, scope: str = ApiToken.Scope.WRITE, name: str = ""
) -> tuple[ApiToken, str]:
    """A new token and its key, which is shown only now.

    Args:
        user: Whose rights it gives.
        days: How long it works; `THAWLOOP_TOKEN_DAYS` if not given.
        scope: `read` or `write`.
        name: What it is for.

    Raises:
        Refused: the time is too long or the account has too many tokens.
    """
    days = settings.THAWLOOP_TOKEN_DAYS if days is None else days
    if not 1 <= days <= LONGEST_DAYS:
        raise Refused(f"A token works for 1 to {LONGEST_DAYS} days, not {days}.")
    now = timezone.now()
    with transaction.atomic():
        ApiToken.objects.filter(user=user, expires__lte=now).delete()
        if ApiToken.objects.filter(user=user).count() >= MOST_PER_ACCOUNT:
            raise Refused(f"{user} has {MOST_PER_ACCOUNT} tokens: withdraw one first (admin, or DELETE /api/token/).")
        key = secrets.token_hex(20)
        token = ApiToken.objects.create(
            user=user, name=name, scope=scope, expires=now + timedelta(days=days), digest=_digest(key)
        )
        audit("core.make_token", token, after={"user": str(user), "scope": scope, "expires": token.expires})
    return token, key


def find_token(key: str) -> ApiToken | None:
    """The token of that key if it works now; when it was last used is noted to the hour."""
    now = timezone.now()
    token = ApiToken.objects.select_related("user").filter(digest=_digest(key), expires__gt=now).first()
    if token is not None and (token.last_used is None or now - token.last_used > _LAST_USED_PRECISION):
        ApiToken.objects.filter(pk=token.pk).update(last_used=now)
    return token


def withdraw_token(token: ApiToken, *, reason: str = "") -> None:
    """End a token before its time."""
    with transaction.atomic():
        audit("core.withdraw_token", token, before={"user": str(token.user), "scope": token.scope}, reason=reason)
        token.delete()


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()
