"""``train``, ``pretrain``, ``finetune``, ``stages``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.detector.commands.options import Arguments, add_command, metrics_text
from ml_backend.detector.commands.paths import by_modality, modality_path, prepare_folder
from ml_backend.detector.commands.training_options import read_settings, settings_of, training_options
from ml_backend.detector.config import DetectorConfig
from ml_backend.detector.errors import ConfigError
from ml_backend.detector.progress import ProgressBar

if TYPE_CHECKING:
    from ml_backend.detector.training import StagesResult, TrainResult


def add(commands: Any) -> None:
    """Declare the commands."""
    joint = add_command(
        commands, "train", _train, "Train on all chosen modalities together, from scratch or from a checkpoint."
    )
    training_options(joint)
    joint.add_argument("--init", type=Path, metavar="CHECKPOINT", help="continue from a checkpoint of the same model")

    single = add_command(commands, "pretrain", _pretrain, "Train a detector on one modality alone, for 'finetune'.")
    training_options(single, modalities=False)
    single.add_argument("--modality", required=True, metavar="M", help="the modality")
    single.add_argument("--init", type=Path, metavar="CHECKPOINT", help="continue from a checkpoint of that modality")

    tuned = add_command(
        commands, "finetune", _finetune, "Combine pretrained detectors, one for each modality, and train them together."
    )
    training_options(tuned)
    tuned.add_argument(
        "--from",
        dest="sources",
        action="append",
        required=True,
        type=modality_path("CHECKPOINT"),
        metavar="M=CHECKPOINT",
        help="checkpoint that a modality's backbone comes from, pretrained on it alone or with others; repeat for each "
        "(the anchor's is required: neck and heads come from it)",
    )

    staged = add_command(
        commands, "stages", _stages, "Pretrain a detector per modality, then combine them and train all together."
    )
    training_options(staged)
    _staged_options(staged.add_argument_group("stages", "Settings of the pretraining."))


def _staged_options(group: Any) -> None:
    group.add_argument(
        "--pretrain-iterations", type=int, metavar="N", help="optimizer steps per modality (default: --iterations)"
    )
    group.add_argument(
        "--pretrain-config",
        type=Path,
        metavar="FILE",
        help="JSON with those settings of the pretraining that differ from the fine-tuning",
    )
    group.add_argument(
        "--from",
        dest="sources",
        action="append",
        default=[],
        type=modality_path("CHECKPOINT"),
        metavar="M=CHECKPOINT",
        help="checkpoint of a modality, which is then not pretrained; repeat for each",
    )
    group.add_argument(
        "--choose-anchor",
        action="store_true",
        help="take the modality whose own detector finds the most on the validation split as the anchor",
    )


def _train(arguments: Arguments) -> None:
    _run(arguments, settings_of(arguments), _start(arguments))


def _pretrain(arguments: Arguments) -> None:
    fixed = {"modalities": [arguments.modality], "anchor": arguments.modality}
    _run(arguments, {**settings_of(arguments), **fixed}, _start(arguments))


def _finetune(arguments: Arguments) -> None:
    _run(arguments, settings_of(arguments), by_modality(arguments.sources, "--from"))


def _start(arguments: Arguments) -> Path | None:
    """The checkpoint of --init, which excludes --pretrained."""
    if arguments.init and arguments.pretrained:
        raise ConfigError("--init replaces all weights, also those of --pretrained: give only one of them.")
    start: Path | None = arguments.init
    return start


def _run(arguments: Arguments, settings: dict[str, Any], init: Any) -> None:
    from ml_backend.detector.training import train

    config = DetectorConfig.from_json(settings)
    prepare_folder(arguments.out, "--out")
    progress = ProgressBar(arguments.json)
    result = train(
        arguments.dataset,
        arguments.out,
        config,
        init=init,
        device=arguments.device,
        progress=progress,
        resume=not arguments.no_resume,
    )
    _print_result(arguments, progress, result.to_json(), _result_text(result, result.peak_memory_mb))


def _stages(arguments: Arguments) -> None:
    from ml_backend.detector.training import train_in_stages

    settings = settings_of(arguments)
    alone = {**settings, "freeze": [], "slow": {}, **read_settings(arguments.pretrain_config, "--pretrain-config")}
    if arguments.pretrain_iterations is not None:
        alone["iterations"] = arguments.pretrain_iterations
    prepare_folder(arguments.out, "--out")
    progress = ProgressBar(arguments.json)
    result = train_in_stages(
        arguments.dataset,
        arguments.out,
        DetectorConfig.from_json(settings),
        pretrain=DetectorConfig.from_json(alone),
        sources=by_modality(arguments.sources, "--from"),
        choose_anchor=arguments.choose_anchor,
        device=arguments.device,
        progress=progress,
        resume=not arguments.no_resume,
    )
    _print_result(arguments, progress, result.to_json(), _stages_text(result))


def _print_result(arguments: Arguments, progress: ProgressBar, result: dict[str, Any], text: str) -> None:
    """Print the result; under torchrun, only in the first process."""
    from ml_backend.detector.training.team import is_first_process

    if is_first_process():
        progress.close()
        print(json.dumps(result, indent=2) if arguments.json else text)


def _result_text(result: TrainResult, peak: float | None) -> str:
    quality = metrics_text(result.metrics) if result.metrics else "no validation split"
    memory = "" if peak is None else f", peak memory {peak:.0f} MB"
    return f"{result.checkpoint}: {result.iterations} steps in {result.seconds:.0f} s{memory}\nval: {quality}"


def _stages_text(result: StagesResult) -> str:
    whole = f"in all: {result.seconds:.0f} s, peak memory {result.peak_memory_mb:.0f} MB"
    lines = [_result_text(stage, result.peak_of(name)) for name, stage in result.stages.items()]
    if result.anchor_scores:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in result.anchor_scores.items())
        lines.insert(-1, f"anchor: {result.anchor} (share of val found by each alone: {scores})")
    return "\n".join([*lines, whole])
