"""The WSGI entry point: `thawloop.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "thawloop.settings")
application = get_wsgi_application()
