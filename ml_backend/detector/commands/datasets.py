"""``check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_backend.detector.commands.options import Arguments, add_command, json_option
from ml_backend.detector.errors import DatasetError

SHOWN = 20  # sentences of each kind


def add(commands: Any) -> None:
    """Declare the command."""
    checked = add_command(
        commands,
        "check",
        _check,
        "List everything that is wrong with a dataset directory. Exit code 1 when something is.",
    )
    checked.add_argument("dataset", type=Path, metavar="DIR", help="dataset directory")
    checked.add_argument(
        "--repair",
        type=Path,
        metavar="OUT",
        help="write the dataset anew to this folder with what is unambiguous mended, tell every change, and check that",
    )
    json_option(checked)


def _check(arguments: Arguments) -> None:
    from ml_backend.detector.problems import counted, table
    from ml_backend.detector.repair import repair
    from ml_backend.detector.validation import find_problems

    changes = repair(arguments.dataset, arguments.repair) if arguments.repair else []
    checked = arguments.repair or arguments.dataset
    problems = find_problems(checked)
    if arguments.json:
        answer = {
            "dataset": str(checked),
            "sound": not problems,
            "kinds": counted(problems),
            "problems": [problem.to_json() for problem in problems],
            "changes": [vars(change) for change in changes],
        }
        print(json.dumps(answer, indent=2))
    else:
        for change in changes:
            place = f" annotation {change.annotation}" if change.annotation is not None else ""
            print(f"mended  {change.file}{place}: {change.text}")
        print(table(problems, SHOWN) if problems else f"{checked}: nothing is wrong")
    if problems:
        count = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
        raise DatasetError(f"{count} wrong with {checked}: mend what is listed" + _hint(arguments))


def _hint(arguments: Arguments) -> str:
    return "." if arguments.repair else ", or let --repair OUT mend what is unambiguous."
