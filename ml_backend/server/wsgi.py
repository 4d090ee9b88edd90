"""The WSGI entry point: `gunicorn ml_backend.server.wsgi:application --threads 4`."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "thawloop.settings")
django.setup()

from ml_backend.server.application import application  # noqa: E402

__all__ = ["application"]
