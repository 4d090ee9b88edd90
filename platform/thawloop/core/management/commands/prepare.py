"""`manage.py prepare`: tables, static files and an administrator, in one idempotent step."""

import os
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction


class Command(BaseCommand):
    """What must be done before the web process can start."""

    help = "Bring the database and the static files up to date; with --admin, make sure that there is an administrator."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Name of the administrator."""
        parser.add_argument(
            "--admin", metavar="NAME", help="account to make if it is missing, password in DJANGO_SUPERUSER_PASSWORD"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate, collect static files, make the administrator."""
        call_command("migrate", interactive=False, verbosity=options["verbosity"], stdout=self.stdout)
        call_command("collectstatic", interactive=False, verbosity=0)
        if options["admin"]:
            self._ensure_admin(options["admin"])

    @transaction.atomic
    def _ensure_admin(self, name: str) -> None:
        """Leave an account that exists as it is: its owner may have changed the password."""
        users = get_user_model().objects
        if users.filter(username=name).exists():
            return
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
        if not password:
            raise CommandError("Put the administrator's password into the environment: DJANGO_SUPERUSER_PASSWORD=...")
        users.create_superuser(name, password=password)
        self.stdout.write(f"Made the administrator {name}.")
