"""Settings refuse what makes no sense in one sentence, whichever way it is given."""

from dataclasses import replace
from typing import Annotated

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.settings import STRICT, Settings, Share


class SenselessError(Exception):
    """Raised in place of pydantic's own."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Oven(Settings, refusal=SenselessError):
    """Settings of every kind."""

    trays: Annotated[int, Field(ge=1, le=9)] = 1
    humidity: Share = 0.5
    timer: Annotated[float, Field(gt=0)] | None = None
    fan: bool = False
    scales: Annotated[tuple[float, float], Field(description="two factors")] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.fan and self.humidity > 0.9:
            self.refuse("fan", "at this `humidity` it must be off")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"trays": 0}, "`trays` is 0; it must be a whole number, at least 1 and at most 9."),
        ({"trays": True}, "`trays` is True; it must be a whole number, at least 1 and at most 9."),
        ({"humidity": "0.5"}, "`humidity` is '0.5'; it must be a number, at least 0 and at most 1."),
        ({"humidity": float("nan")}, "`humidity` is nan; it must be a number, at least 0 and at most 1."),
        ({"timer": 0}, "`timer` is 0; it must be a number, above 0, or null."),
        ({"fan": 1}, "`fan` is 1; it must be true or false."),
        ({"scales": (1.0, "x")}, "`scales` is (1.0, 'x'); it must be two factors."),
        ({"fan": True, "humidity": 1.0}, "`fan` is True; at this `humidity` it must be off."),
        ({"humid": 1.0}, "Unknown setting `humid`; did you mean `humidity`?"),
        ({"colour": 1}, "Unknown setting `colour`; known are trays, humidity, timer, fan, scales."),
        ({"trays": 0, "tray": 1}, "Unknown setting `tray`; did you mean `trays`?"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(given: dict[str, object], sentence: str) -> None:
    for make in (Oven.from_json, lambda values: Oven(**values)):
        with pytest.raises(SenselessError) as refused:
            make(given)
        assert str(refused.value) == sentence


def test_a_changed_copy_is_judged_as_well() -> None:
    with pytest.raises(SenselessError, match="`trays` is 0"):
        replace(Oven(), trays=0)


@pytest.mark.parametrize("data", [None, [1, 2], "trays"])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(SenselessError, match="they must be names with values"):
        Oven.from_json(data)  # type: ignore[arg-type]


def test_keys_that_are_no_names_are_unknown() -> None:
    with pytest.raises(SenselessError, match="Unknown setting `1`"):
        Oven.from_json({1: 2})  # type: ignore[dict-item]
