"""The admin as an app, with our own site."""

from django.contrib.admin.apps import AdminConfig


class Admin(AdminConfig):
    default_site = "thawloop.core.admin_site.Site"
