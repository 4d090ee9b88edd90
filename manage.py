#!/usr/bin/env python3
"""Run ThawLoop's management commands: `python manage.py help` lists them."""

import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "platform"))


def main() -> None:
    """Hand the command line to Django."""
    checkout = importlib.util.find_spec("devstack") is not None  # an installation has neither it nor its commands
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devstack.settings" if checkout else "thawloop.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
