"""The admin's site: open to whoever has something to do there, not only to staff."""

from typing import Any

from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest
from unfold.forms import AuthenticationForm as UnfoldAuthenticationForm
from unfold.sites import UnfoldAdminSite

from thawloop.core.roles import may_enter_admin


class LoginForm(UnfoldAuthenticationForm):  # type: ignore[misc]
    """unfold's form, without Django's rule that only staff may log in."""

    def confirm_login_allowed(self, user: Any) -> None:
        AuthenticationForm.confirm_login_allowed(self, user)
        if not may_enter_admin(user):
            raise self.get_invalid_login_error()


class Site(UnfoldAdminSite):  # type: ignore[misc]
    """What a person sees and may change inside is a matter of their permissions."""

    login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        return may_enter_admin(request.user)
