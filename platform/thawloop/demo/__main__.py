"""`python -m thawloop.demo FILE.toml --summary PATH`: the rounds of the guided run, on servers that run already.

The environment says where they are (DATABASE_URL, REDIS_URL, LABEL_STUDIO_URL, ...). `manage.py demo` starts servers,
calls this, and shows the result.
"""

import argparse
import os
import sys
from pathlib import Path

import django


def main() -> int:
    """Run; 0 when done, 1 with a sentence on stderr when it cannot go on."""
    parser = argparse.ArgumentParser(prog="python -m thawloop.demo", description=__doc__)
    parser.add_argument("file", type=Path, help="campaign file")
    parser.add_argument("--summary", type=Path, required=True, help="where to write summary.json")
    parser.add_argument("--rounds", type=int, help="rounds to do (default: the file's)")
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "thawloop.settings")
    django.setup()

    from labeling.campaign_file import parse_campaign_file
    from thawloop.core.context import acting
    from thawloop.core.errors import Refused
    from thawloop.demo.loop import Loop
    from thawloop.demo.screen import Screen

    try:
        spec = parse_campaign_file(arguments.file)
        rounds = spec.demo.rounds if arguments.rounds is None else arguments.rounds
        with acting(name="demo"):
            loop = Loop(spec, Screen(), arguments.summary.parent / "exports")
            loop.run(rounds).write(arguments.summary)
    except Refused as refusal:
        print(f"The demo stopped: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
