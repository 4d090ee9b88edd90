"""The WSGI entry point: `ml_backend.server.wsgi:application`; `python -m ml_backend.server` serves it."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "thawloop.settings")
django.setup()

from ml_backend.server.application import application  # noqa: E402

__all__ = ["application"]
