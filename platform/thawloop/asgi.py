"""The ASGI entry point: `thawloop.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "thawloop.settings")
application = get_asgi_application()
