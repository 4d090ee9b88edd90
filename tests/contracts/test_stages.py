"""Which trainings a model has: one table for the detector's command, a retraining's runs and the dry run."""

from typing import Any

import pytest

from contracts.network import FUSIONS, stacks_bands
from contracts.stages import PRETRAINING_SEEDS, plan_stages

JOINING, STACK = "conv", "stack"
FRESH = "from scratch"
CONTINUED = "continues"


def told(stages: Any) -> list[str]:
    """Each stage as `name [modalities, the anchor first or ? where it is to be chosen] <- what it starts from`."""
    lines = []
    for stage in stages:
        others = [name for name in stage.modalities if name != stage.anchor]
        start = CONTINUED if stage.continues else "+".join(stage.sources) or FRESH
        lines.append(f"{stage.name} [{' '.join((stage.anchor or '?', *others))}] <- {start}")
    return lines


RGB, DEM = f"pretrain-rgb [rgb] <- {FRESH}", f"pretrain-dem [dem] <- {FRESH}"
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing is there": ({}, [RGB, DEM, "finetune [rgb dem] <- rgb+dem"]),
    "another anchor": ({"anchor": "dem"}, [RGB, DEM, "finetune [dem rgb] <- rgb+dem"]),
    "one is there": ({"there": {"rgb"}}, [DEM, "finetune [rgb dem] <- rgb+dem"]),
    "all are there": ({"there": {"rgb", "dem"}}, ["finetune [rgb dem] <- rgb+dem"]),
    "one of another model is there": ({"there": {"nir"}}, [RGB, DEM, "finetune [rgb dem] <- rgb+dem"]),
    "stacked": ({"fusion": STACK}, [RGB, "finetune [rgb dem] <- rgb"]),
    "stacked on the second": ({"fusion": STACK, "anchor": "dem"}, [DEM, "finetune [dem rgb] <- dem"]),
    "stacked, the anchor's is there": ({"fusion": STACK, "there": {"rgb"}}, ["finetune [rgb dem] <- rgb"]),
    "stacked, the other's is there": ({"fusion": STACK, "there": {"dem"}}, [RGB, "finetune [rgb dem] <- rgb"]),
    "to be chosen": ({"anchor": None}, [RGB, DEM, "finetune [? rgb dem] <- rgb+dem"]),
    "to be chosen, stacked": ({"anchor": None, "fusion": STACK}, [RGB, DEM, "finetune [? rgb dem] <- rgb+dem"]),
    "to be chosen, all there": ({"anchor": None, "there": {"rgb", "dem"}}, ["finetune [? rgb dem] <- rgb+dem"]),
    "a model is there": ({"can_continue": True}, [f"finetune [rgb dem] <- {CONTINUED}"]),
    "a model and detectors are there": (
        {"can_continue": True, "there": {"rgb", "dem"}},
        [f"finetune [rgb dem] <- {CONTINUED}"],
    ),
    "a model is there, but its anchor was not chosen": (
        {"can_continue": True, "anchor": None},
        [RGB, DEM, "finetune [? rgb dem] <- rgb+dem"],
    ),
    "a model is there, no pretraining": (
        {"can_continue": True, "pretrains": False},
        [f"finetune [rgb dem] <- {CONTINUED}"],
    ),
    "no pretraining": ({"pretrains": False}, [f"finetune [rgb dem] <- {FRESH}"]),
    "no pretraining, all are there": (
        {"pretrains": False, "there": {"rgb", "dem"}},
        [f"finetune [rgb dem] <- {FRESH}"],
    ),
    "one modality": ({"modalities": ["rgb"]}, [f"finetune [rgb] <- {FRESH}"]),
    "one modality, continued": ({"modalities": ["rgb"], "can_continue": True}, [f"finetune [rgb] <- {CONTINUED}"]),
    "three": (
        {"modalities": ["rgb", "dem", "nir"], "anchor": "dem", "there": {"rgb"}},
        [DEM, f"pretrain-nir [nir] <- {FRESH}", "finetune [dem rgb nir] <- rgb+dem+nir"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_trainings_of_a_model(case: str) -> None:
    given, stages = CASES[case]
    assert told(plan_stages(**{"modalities": ["rgb", "dem"], "fusion": JOINING, "anchor": "rgb", **given})) == stages


@pytest.mark.parametrize("fusion", FUSIONS)
def test_all_modalities_are_pretrained_unless_their_bands_are_stacked(fusion: str) -> None:
    *alone, last = plan_stages(["rgb", "dem"], fusion=fusion, anchor="dem")
    assert [stage.pretrains for stage in alone] == (["dem"] if stacks_bands(fusion) else ["rgb", "dem"])
    assert list(last.sources) == [stage.pretrains for stage in alone]


@pytest.mark.parametrize("given", [{"pretrains": False}, {"modalities": ["rgb"]}])
def test_an_anchor_cannot_be_chosen_without_detectors_to_choose_by(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="chosen by pretrained detectors of several modalities"):
        plan_stages(**{"modalities": ["rgb", "dem"], "fusion": JOINING, "anchor": None, **given})


def test_pretraining_takes_its_randomness_from_elsewhere() -> None:
    seeds = [stage.seed(7) for stage in plan_stages(["rgb", "dem"], fusion=JOINING, anchor="rgb")]
    assert seeds == [7 + PRETRAINING_SEEDS, 7 + PRETRAINING_SEEDS, 7]
