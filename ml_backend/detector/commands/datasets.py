"""``check``, ``import-dataset``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_backend.detector.commands.options import Arguments, add_command, json_option, whole_number
from ml_backend.detector.commands.paths import by_modality, modality_path
from ml_backend.detector.errors import DatasetError

SHOWN = 20  # problems listed per kind


def add(commands: Any) -> None:
    """Declare the commands."""
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
        help="write a copy to this folder with unambiguous problems repaired, list every change, and check the copy",
    )
    json_option(checked)
    _import_options(
        add_command(
            commands,
            "import-dataset",
            _import,
            "Write a dataset directory from COCO, LabelMe or VIA JSON beside images, or from numpy archives (.npz).",
        )
    )


def _import_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="a JSON file, an archive, or a folder of them")
    add("--out", type=Path, required=True, metavar="DIR", help="dataset directory to write; must not exist")
    add("--format", choices=("coco", "labelme", "via", "npz"), default="", help="default: by the files' content")
    add("--images", type=Path, metavar="DIR", help="folder of the images (default: SOURCE's)")
    add("--modality", default="rgb", metavar="M", help="modality of the images (default: rgb)")
    add("--class-attribute", default="", metavar="A", help="VIA: attribute of regions that holds their class")
    add(
        "--array",
        action="append",
        type=modality_path("KEY"),
        metavar="M=KEY",
        help="npz: array of a modality; repeatable",
    )
    add("--labels", default="", metavar="KEY", help="npz: array of labels (default: masks, mask, labels, ...)")
    add("--classes", nargs="+", default=["object"], metavar="C", help="npz: names of the classes (default: object)")
    add("--semantic", action="store_true", help="npz: label numbers are classes; by default each number is an object")
    add("--val", type=float, default=0.15, help="share of tiles for val, if the source has no splits (default: 0.15)")
    add("--test", type=float, default=0.15, help="share of tiles for test, likewise (default: 0.15)")
    add("--seed", type=whole_number(0), default=0, help="seed of the random split (default: 0)")
    json_option(parser)


def _import(arguments: Arguments) -> None:
    from ml_backend.detector.importing import ImportOptions, import_dataset
    from ml_backend.detector.problems import counted
    from ml_backend.detector.validation import find_problems

    names = ("format", "images", "modality", "labels", "semantic", "classes", "class_attribute", "val", "test", "seed")
    arrays = {name: str(key) for name, key in by_modality(arguments.array or [], "--array").items()}
    options = ImportOptions(arrays=arrays, **{name: getattr(arguments, name) for name in names})
    found = import_dataset(arguments.source, arguments.out, options)
    problems = find_problems(arguments.out)
    if arguments.json:
        print(json.dumps({**asdict(found), "dataset": str(arguments.out), "problems": counted(problems)}, indent=2))
        return
    classes = ", ".join(found.classes)
    print(f"{arguments.out}: {found.objects} objects ({classes}) on {found.tiles} tiles ({found.format})")
    for reason in found.left_out[:SHOWN]:
        print(f"left out  {reason}")
    if len(found.left_out) > SHOWN:
        print(f"left out  {len(found.left_out) - SHOWN} more (--json has all)")
    if problems:
        print(
            f"{len(problems)} things are wrong with it: list and repair them with 'check {arguments.out} --repair OUT'"
        )


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
            print(f"repaired  {change.file}{place}: {change.text}")
        print(table(problems, SHOWN) if problems else f"{checked}: nothing is wrong")
    if problems:
        count = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
        raise DatasetError(f"{count} wrong with {checked}: fix what is listed" + _hint(arguments))


def _hint(arguments: Arguments) -> str:
    return "." if arguments.repair else ", or let --repair OUT repair what is unambiguous."
