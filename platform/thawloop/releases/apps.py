from django.apps import AppConfig


class ReleasesConfig(AppConfig):
    name = "thawloop.releases"
    label = "releases"
