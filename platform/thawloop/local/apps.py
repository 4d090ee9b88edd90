from django.apps import AppConfig


class LocalConfig(AppConfig):
    name = "thawloop.local"
    label = "local"
