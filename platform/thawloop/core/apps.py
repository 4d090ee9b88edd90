from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "thawloop.core"
    label = "core"
