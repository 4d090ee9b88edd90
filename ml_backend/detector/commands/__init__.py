"""``python -m ml_backend.detector``: check data; train, evaluate, run, compare, benchmark, export, inspect detectors.

Exit codes: 0 done, 1 refused or failed (one sentence on stderr), 2 wrong usage. One module per group of commands;
each has ``add(commands)``, which declares its commands and their options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ml_backend.detector.commands import benchmark, compare, datasets, evaluation, export, info, prediction, training
from ml_backend.detector.errors import AnotherProcessFailedError, DetectorError

CONTINUED = ("train", "pretrain", "finetune", "stages", "compare", "predict")
FAMILIES = (datasets, training, evaluation, prediction, compare, export, benchmark, info)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see the module's docstring."""
    arguments = command_line().parse_args(argv)
    try:
        command: Callable[[argparse.Namespace], None] = arguments.command
        command(arguments)
    except AnotherProcessFailedError:
        return 1
    except DetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename or 'The disk'}: {error.strerror}: check the path and free space.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        rest = ": the same command continues from the last saved state." if arguments.name in CONTINUED else "."
        print(f"error: Interrupted{rest}", file=sys.stderr)
        return 1
    return 0


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_backend.detector", description=(__doc__ or "").split(": ", 1)[1].split("\n", 1)[0]
    )
    commands = parser.add_subparsers(required=True, dest="name", metavar="COMMAND")
    for family in FAMILIES:
        family.add(commands)
    return parser
