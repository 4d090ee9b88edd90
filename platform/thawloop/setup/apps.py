from django.apps import AppConfig


class SetupConfig(AppConfig):
    """Setting campaigns up from a file."""

    name = "thawloop.setup"
    label = "setup"
