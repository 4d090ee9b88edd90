"""Authentication by password and token, both slowed down after failures. Every login goes through here."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest
from rest_framework import authentication, exceptions
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from thawloop.core.models import ApiToken
from thawloop.core.services.logins import check_may_try, forget_failures, record_failure
from thawloop.core.services.tokens import find_token

_NO_NAME = "a token"  # failures with tokens are counted under this name, which is not an account's
_TOKENS_FROM = (
    "tokens from {}"  # and this address: a program whose token expired must not lock out others at its address
)


class GuardedBackend(ModelBackend):
    """Django's passwords; after failures one has to wait, longer each time (login page, admin, API tokens)."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        """The account, or None.

        Raises:
            TooManyFailures: the attempt comes too soon.
        """
        if request is None or username is None:
            return super().authenticate(request, username, password, **kwargs)
        address = address_of(request)
        check_may_try(username, address)
        user = super().authenticate(request, username, password, **kwargs)
        if user is None:
            record_failure(username, address)
        else:
            forget_failures(username, address)
        return user


class TokenAuthentication(authentication.TokenAuthentication):
    """`Authorization: Token KEY`: our tokens, which expire and may be for reading only, and those made before them.

    Tokens of `rest_framework.authtoken` go on working as they did, until somebody deletes them in the admin.
    """

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """The account and its token, or None where none was given."""
        try:
            found = super().authenticate(request)
        except exceptions.AuthenticationFailed:
            address = _TOKENS_FROM.format(address_of(request))
            check_may_try(_NO_NAME, address)
            record_failure(_NO_NAME, address)
            raise
        if found is not None and isinstance(found[1], ApiToken):
            _check_scope(request, found[1])
        return found

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        """The account of a key."""
        token = find_token(key)
        if token is None:
            return super().authenticate_credentials(key)  # type: ignore[no-any-return]
        if not token.user.is_active:
            raise exceptions.AuthenticationFailed("This account is not active.")
        return token.user, token


def _check_scope(request: Request, token: ApiToken) -> None:
    view = (request.parser_context or {}).get("view")
    if token.scope == ApiToken.Scope.READ and request.method not in getattr(view, "reading_methods", SAFE_METHODS):
        raise exceptions.PermissionDenied("This token is for reading only: make one with scope `write`.")


def address_of(request: Any) -> str:
    """The client's address; the web server has already applied what a trusted proxy says."""
    return str(request.META.get("REMOTE_ADDR") or "")
