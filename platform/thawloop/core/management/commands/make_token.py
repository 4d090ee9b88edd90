"""`manage.py make_token`: a token for the API for an account, shown once."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model

from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.core.models import ApiToken
from thawloop.core.services import make_token


class Command(ThawloopCommand):
    help = "Make a token for the API (`Authorization: Token KEY`). Its key is shown this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the account whose rights it gives")
        parser.add_argument("--days", type=int, help="how long it works (default: THAWLOOP_TOKEN_DAYS)")
        parser.add_argument("--scope", choices=ApiToken.Scope.values, default="write", help="default: write")
        parser.add_argument("--name", default="", help="what it is for")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        user = get_user_model().objects.filter(username=options["user"]).first()
        if user is None:
            raise Refused(f"There is no account {options['user']!r}: make it in the admin first.")
        token, key = make_token(user, days=options["days"], scope=options["scope"], name=options["name"])
        return {"token": key, "scope": token.scope, "expires": token.expires}
