"""`python -m demo FILE.toml --summary PATH`: the rounds of the guided run, on servers that run already.

The environment says where they are (DATABASE_URL, REDIS_URL, LABEL_STUDIO_URL, ...). `manage.py demo` starts servers,
calls this, and shows the result.
"""

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path

import django


def main() -> int:
    """Run; 0 when done, 1 with a sentence on stderr when it cannot go on."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("file", type=Path, help="campaign file")
    parser.add_argument("--summary", type=Path, required=True, help="where to write summary.json")
    parser.add_argument("--rounds", type=int, help="rounds to do (default: the file's)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devstack.settings")
    django.setup()

    from django.conf import settings
    from django.db import DatabaseError

    from demo.loop import Loop
    from demo.screen import Screen
    from thawloop.core.context import acting
    from thawloop.core.errors import Refused
    from thawloop.setup.reading import parse_campaign_file

    logs = Path(settings.VAR_DIR) / "logs"
    try:
        spec = parse_campaign_file(arguments.file)
        rounds = spec.demo.rounds if arguments.rounds is None else arguments.rounds
        with acting(name="demo"):
            loop = Loop(spec, Screen(), arguments.summary.parent / "exports")
            stopped = None
            try:
                loop.run(rounds)
            except Refused as refusal:
                stopped = refusal
            if (summary := loop.summary()) is not None:  # also where it stopped: the rounds before brought something
                summary.write(arguments.summary)
            if stopped is not None:
                raise stopped
            loop.check()
    except Refused as refusal:
        print(f"The demo stopped: {refusal}", file=sys.stderr)
        return 1
    except DatabaseError as error:
        print(f"The demo stopped: the database failed ({error}). See {logs / 'postgres.log'}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - a person gets a sentence, the log gets everything
        with (logs / "demo.log").open("a") as log:
            traceback.print_exc(file=log)
        print(f"The demo stopped: {type(error).__name__}: {error}. See {logs / 'demo.log'}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
