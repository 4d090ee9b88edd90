"""`manage.py generate_dataset --out DIR`: a dataset directory with a known answer."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from contracts.dataset import SPLITS
from demo.recipe import MODALITIES, Recipe
from demo.synthetic import generate_dataset
from thawloop.core.cli import ThawloopCommand

USUAL = Recipe()


class Command(ThawloopCommand):
    """Generate a dataset."""

    help = (
        "Write a dataset directory of generated thaw slumps with a known answer, to train and compare detectors on "
        "(python -m ml_backend.detector train --dataset DIR). Look-alikes have the slumps' colours without their "
        "depression, or the depression without their colours; part of the slumps is only seen by both together. "
        "Needs no database. The same options give the same files."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The recipe."""
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must not exist")
        parser.add_argument("--seed", type=int, default=USUAL.seed, help="of everything (%(default)s)")
        for split in SPLITS:
            usual = USUAL.tiles[split]
            parser.add_argument(f"--{split}", type=int, default=usual, metavar="N", help=f"{split} tiles ({usual})")
        parser.add_argument(
            "--tile-size", type=int, default=USUAL.tile_size, metavar="PX", help="of 320 m wide tiles (%(default)s)"
        )
        parser.add_argument(
            "--modalities",
            nargs="+",
            default=list(USUAL.modalities),
            metavar="NAME",
            help=f"among {', '.join(MODALITIES)}; the first is the anchor ({' '.join(USUAL.modalities)})",
        )
        self._add_number(parser, "missing_dem", "SHARE", "of tiles without elevation")
        self._add_number(parser, "signal_split", "SHARE", "of slumps half seen in colour, half in elevation")
        self._add_number(parser, "dem_noise", "METRES", "error of elevation")
        self._add_number(parser, "illumination_shift", "X", "test split in a lower, weaker sun; 1 is strong")
        self._add_number(parser, "season_shift", "X", "test split later in the year; 1 is strong")
        self._add_number(parser, "dem_shift", "X", "test split with biased, noisier elevation; 1 is 5 m and 1 m")
        parser.add_argument("--noise", default="", metavar="NAME", help="a modality to be replaced by noise everywhere")

    def run(self, options: dict[str, Any]) -> dict[str, Any]:
        """Generate, and count."""
        names = {"seed", "tile_size", "missing_dem", "signal_split", "dem_noise", "noise"}
        names |= {"illumination_shift", "season_shift", "dem_shift"}
        recipe = Recipe(
            tiles={split: options[split] for split in SPLITS},
            modalities=tuple(options["modalities"]),
            **{name: options[name] for name in names},
        )
        with self.progress("Generating") as report:
            counts = generate_dataset(options["out"].absolute(), recipe, report)
        return {"dataset": str(options["out"]), "splits": [{"split": split, **row} for split, row in counts.items()]}

    def _add_number(self, parser: ArgumentParser, name: str, metavar: str, text: str) -> None:
        usual = getattr(USUAL, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=usual, metavar=metavar, help=f"{text} ({usual:g})"
        )
