"""``python -m ml_backend.detector``: train, pretrain, finetune, evaluate, predict and inspect detectors.

Exit codes: 0 done, 1 refused or failed (one sentence on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.detector.checkpoint import inspect, replace_file
from ml_backend.detector.config import FUSIONS, PARTS, SIZES, DetectorConfig
from ml_backend.detector.dataset import read_dataset, read_json
from ml_backend.detector.errors import ConfigError, DetectorError

if TYPE_CHECKING:
    from ml_backend.detector.training import TrainResult

Arguments = argparse.Namespace
DEFAULTS = DetectorConfig()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see the module's docstring."""
    arguments = _parser().parse_args(argv)
    try:
        command: Callable[[Arguments], None] = arguments.command
        command(arguments)
    except DetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename or 'The disk'}: {error.strerror}: check the path and free space.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("error: Interrupted: the same command continues from the last saved state.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml_backend.detector", description=(__doc__ or "").split(": ", 1)[1]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    joint = _command(
        commands, "train", _train, "Train on all chosen modalities together, from scratch or a checkpoint."
    )
    _training_options(joint)
    joint.add_argument("--modalities", nargs="+", metavar="M", help="modalities to use (default: all of the dataset)")
    joint.add_argument("--init", type=Path, metavar="CHECKPOINT", help="continue from a checkpoint of the same model")

    single = _command(commands, "pretrain", _pretrain, "Train a detector on one modality alone, for 'finetune'.")
    _training_options(single)
    single.add_argument("--modality", required=True, metavar="M", help="the modality")
    single.add_argument("--init", type=Path, metavar="CHECKPOINT", help="continue from a checkpoint of that modality")

    tuned = _command(commands, "finetune", _finetune, "Join detectors pretrained per modality and train them together.")
    _training_options(tuned)
    tuned.add_argument("--modalities", nargs="+", metavar="M", help="modalities to use (default: all of the dataset)")
    tuned.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        type=_named_path,
        metavar="M=CHECKPOINT",
        help="pretrained checkpoint of a modality; repeat for each (the anchor's is needed: it brings neck and heads)",
    )

    judged = _command(commands, "evaluate", _evaluate, "Measure a checkpoint on a split: mask AP, AP50, AP30, F1.")
    judged.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    judged.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    judged.add_argument("--split", default="test", choices=("train", "val", "test"), help="default: test")
    judged.add_argument("--max-detections", type=int, default=100, help="instances counted per tile (default: 100)")
    judged.add_argument("--out", type=Path, metavar="FILE", help="also write everything, per image too, as JSON")
    _common_options(judged)

    found = _command(commands, "predict", _predict, "Find instances on the tiles of a split and write them as JSON.")
    found.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    found.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="checkpoint folder")
    found.add_argument("--split", default="test", choices=("train", "val", "test"), help="default: test")
    found.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    found.add_argument(
        "--score-threshold", type=float, default=0.05, help="leave out less certain ones (default: 0.05)"
    )
    _common_options(found)

    told = _command(commands, "info", _info, "Show what a checkpoint is, without loading its weights.")
    told.add_argument("checkpoint", type=Path, help="checkpoint folder")
    told.add_argument("--json", action="store_true", help="the whole card as JSON")
    return parser


def _command(commands: Any, name: str, function: Callable[[Arguments], None], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    return command


def _training_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", type=Path, required=True, metavar="DIR", help="dataset directory")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of this training; DIR/checkpoint is the result")
    add("--config", type=Path, metavar="FILE", help="JSON with any of the settings; options given here win")
    add("--size", choices=SIZES, help=f"model size (default: {DEFAULTS.size})")
    add("--fusion", choices=FUSIONS, help=f"how modalities are joined (default: {DEFAULTS.fusion})")
    add("--anchor", metavar="M", help="modality the others are added to (default: the dataset's)")
    add("--iterations", type=int, help=f"optimizer steps (default: {DEFAULTS.iterations})")
    add("--batch-size", type=int, help=f"tiles per step (default: {DEFAULTS.batch_size})")
    add("--learning-rate", type=float, help=f"peak learning rate (default: {DEFAULTS.learning_rate:g})")
    add("--warmup", type=int, help=f"steps of warmup (default: {DEFAULTS.warmup})")
    add("--image-size", type=int, help="resample tiles to this many pixels (default: their own size)")
    add("--freeze", nargs="+", metavar="PART", help=f"keep the weights of: modalities, {', '.join(PARTS)}")
    add("--modality-dropout", type=float, help=f"share of hidden modalities (default: {DEFAULTS.modality_dropout})")
    add("--eval-interval", type=int, help="steps between evaluations on val, to keep the best (default: at the end)")
    add("--seed", type=int, help=f"seed of everything random (default: {DEFAULTS.seed})")
    add("--no-resume", action="store_true", help="discard an earlier training in --out instead of continuing it")
    _common_options(parser)


def _common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON and no progress")


def _named_path(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form MODALITY=CHECKPOINT")
    return name, Path(path)


def _config(arguments: Arguments, **fixed: Any) -> DetectorConfig:
    """Settings from --config, then from options, then those that the command fixes."""
    settings: dict[str, Any] = {}
    if arguments.config:
        settings = read_json(arguments.config, "the --config file")
        if not isinstance(settings, dict):
            raise ConfigError(f"{arguments.config} must hold a JSON object of settings.")
    given = {key: getattr(arguments, key, None) for key in DEFAULTS.to_json()}
    settings.update({key: value for key, value in given.items() if value is not None})
    return DetectorConfig.from_json({**settings, **fixed})


def _train(arguments: Arguments) -> None:
    _run(arguments, _config(arguments), arguments.init)


def _pretrain(arguments: Arguments) -> None:
    _run(arguments, _config(arguments, modalities=[arguments.modality], anchor=arguments.modality), arguments.init)


def _finetune(arguments: Arguments) -> None:
    _run(arguments, _config(arguments), dict(arguments.sources))


def _run(arguments: Arguments, config: DetectorConfig, init: Any) -> None:
    from ml_backend.detector.training import train

    progress = _Bar(arguments.json)
    result = train(
        arguments.dataset,
        arguments.out,
        config,
        init=init,
        device=arguments.device,
        progress=progress,
        resume=not arguments.no_resume,
    )
    progress.close()
    print(json.dumps(result.to_json(), indent=2) if arguments.json else _result_text(result))


def _result_text(result: TrainResult) -> str:
    quality = _metrics_text(result.metrics) if result.metrics else "no validation split"
    return (
        f"{result.checkpoint}: {result.iterations} steps in {result.seconds:.0f} s, "
        f"peak memory {result.peak_memory_mb:.0f} MB\nval: {quality}"
    )


def _metrics_text(metrics: dict[str, Any]) -> str:
    names = ("ap", "ap50", "ap75", "ap30", "ar", "f1", "precision", "recall", "best_score_threshold")
    figures = "  ".join(f"{name} {metrics[name]:.3f}" for name in names)
    return f"{figures}  ({metrics['n_instances']} instances on {metrics['n_tiles']} tiles)"


def _evaluate(arguments: Arguments) -> None:
    from ml_backend.detector.evaluation import evaluate

    progress = _Bar(arguments.json)
    result = evaluate(
        arguments.dataset,
        arguments.checkpoint,
        split=arguments.split,
        device=arguments.device,
        progress=progress,
        max_detections=arguments.max_detections,
    )
    progress.close()
    if arguments.out:
        replace_file(arguments.out, json.dumps(result.to_json(), indent=2).encode())
    print(json.dumps(result.to_json(), indent=2) if arguments.json else _metrics_text(result.summary()))


def _predict(arguments: Arguments) -> None:
    from ml_backend.detector.chips import read_tile
    from ml_backend.detector.evaluation import check_fits
    from ml_backend.detector.inference import load

    dataset = read_dataset(arguments.dataset)
    detector = load(arguments.checkpoint, arguments.device)
    check_fits(detector, dataset, arguments.checkpoint)
    tiles = dataset.with_modalities(detector.modalities).usable_tiles(arguments.split)
    progress = _Bar(arguments.json)
    predictions = []
    for number, tile in enumerate(tiles, start=1):
        chip = read_tile(dataset, detector.modalities, tile)
        (result,) = detector.predict([chip], score_threshold=arguments.score_threshold)
        predictions.append(
            {
                "file_name": tile.file_name,
                "detections": [detection.to_json() for detection in result.detections],
                "embedding": result.embedding.tolist(),
                "seconds": result.seconds,
            }
        )
        progress(number / len(tiles), f"tile {number}/{len(tiles)}")
    progress.close()
    replace_file(arguments.out, json.dumps({"tiles": predictions}).encode())
    found = sum(len(prediction["detections"]) for prediction in predictions)
    summary = {"file": str(arguments.out), "tiles": len(tiles), "instances": found}
    print(json.dumps(summary) if arguments.json else f"{arguments.out}: {found} instances on {len(tiles)} tiles")


def _info(arguments: Arguments) -> None:
    card = inspect(arguments.checkpoint)
    if arguments.json:
        print(json.dumps(card, indent=2))
        return
    config = card["config"]
    print(f"size        {config['size']}, {card['weights']['parameters'] / 1e6:.1f} M parameters")
    print(f"classes     {', '.join(card['classes'])}")
    for modality in card["modalities"]:
        anchor = " (anchor)" if modality["name"] == config["anchor"] else ""
        print(f"modality    {modality['name']}{anchor}: {', '.join(modality['bands'])}")
    print(f"fusion      {config['fusion'] if len(card['modalities']) > 1 else 'none'}")
    print(f"dataset     {card['dataset']['name']} {card['dataset']['version']}")
    print(f"trained     {card['iterations']} steps, seed {config['seed']}, {card['created']}")
    print(f"val         {_metrics_text(card['metrics']) if card['metrics'] else 'not measured'}")


class _Bar:
    """Progress with the time left: one moving line on a terminal, a line now and then elsewhere, nothing for JSON."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()
        self._first: float | None = None

    def __call__(self, share: float, text: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = share, now  # a resumed training starts further on
        if self._silent or (not self._terminal and now - self._shown < 10 and share < 1):
            return
        self._shown = now
        done = share - self._first
        left = f"{(now - self._started) * (1 - share) / done:.0f} s left" if done > 0 else ""
        line = f"{share:4.0%} {text}  {left}"
        print(
            f"\r\033[K{line}" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Leave the moving line."""
        if self._terminal and not self._silent:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
