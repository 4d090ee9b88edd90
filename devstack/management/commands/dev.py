"""`manage.py dev`: everything for work on ThawLoop itself, restarted when its code changes."""

from typing import Any

from django.core.management.base import CommandParser

from devstack.management.commands import serve


class Command(serve.Command):
    help = (
        "Run web pages, workers, reconciler and ML backend on private servers until Ctrl-C, and restart them when a "
        "Python file or a template of the product changes. Error pages show the code. Data stays in var/dev; Label "
        "Studio runs only with --labelstudio."
    )
    folder = "dev"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--labelstudio", action="store_true", help="with Label Studio, which takes a minute more")

    def choices(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            **super().choices(options),
            "labelstudio": options["labelstudio"],
            "settings": "devstack.dev_settings",
            "reload": True,
        }
