"""Settings as frozen pydantic dataclasses. A value that cannot be is refused in one sentence that names its key."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from contracts.network import Fusion, Size

LARGEST_SEED = 2**53 - 1  # every JSON reader keeps whole numbers up to here
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")  # how dataclasses and models call it
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

_KINDS = {
    **{"integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"},
    **{"string": "text", "array": "a list of names", "object": "a table"},
}
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}

AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class SettingsRefused(Exception):
    """A setting is unknown or its value makes no sense; rooms name a refusal of their own."""


class Settings:
    """Base of settings, which are read from JSON and written to it.

    A subclass is a `@dataclass(frozen=True, kw_only=True, config=STRICT)` of pydantic's and names its `refusal`, the
    exception to raise for what makes no sense.
    """

    refusal: ClassVar[type[Exception]] = SettingsRefused

    def __init_subclass__(cls, refusal: type[Exception] | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if refusal is not None:
            cls.refusal = refusal

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_words(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(given)
        except ValidationError as error:
            values = given.kwargs or {} if isinstance(given, ArgsKwargs) else {}
            raise cls.refusal(sentence(error, cls, values)) from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build from JSON; what is missing takes its default.

        Raises:
            Exception: `refusal`: a key is unknown or a value makes no sense.
        """
        if not isinstance(data, Mapping):
            raise cls.refusal(f"{cls.__name__} are {data!r}; they must be names with values.")
        return cls(**{str(key): value for key, value in data.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `from_json` is the inverse."""
        plain: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return plain

    def refuse(self, key: str, why: str) -> None:
        """Refuse a value for what other settings say.

        Raises:
            Exception: `refusal`.
        """
        raise self.refusal(f"`{key}` is {getattr(self, key)!r}; {why}.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSettings(Settings):
    """What a campaign and the detector both say of a model and its training.

    Attributes:
        size: `nano` (CPU, demo and tests), `tiny` (MViTv2-T, the paper's), `small` or `base`.
        fusion: How modalities are joined.
        anchor: The modality that the others are added to; empty is the dataset's.
        iterations: Optimizer steps.
        batch_size: Tiles that go through the network together.
        image_size: Network pixels of the longest side of the largest training tile; None keeps tiles as they are.
        modality_dropout: Chance that a modality other than the anchor is hidden from a training tile.
        empty_share: Share of training tiles drawn from those without objects, where there are any.
        seed: Of weights, data order and everything else that is random.
    """

    size: Size = "nano"
    fusion: Fusion = "residual_cross_attention"
    anchor: Annotated[str, Field(description="the name of a modality")] = ""
    iterations: AtLeastOne = 150
    batch_size: AtLeastOne = 4
    image_size: Annotated[int, Field(ge=32)] | None = None
    modality_dropout: ShareBelowOne = 0.1
    empty_share: ShareBelowOne = 0.2
    seed: Seed = 0


def sentence(error: ValidationError, kind: type, values: Mapping[str, Any]) -> str:
    """What is wrong with settings: an unknown key, or the first value that cannot be, and what it can be.

    Args:
        error: What pydantic found.
        kind: The dataclass that was to be made.
        values: What it was to be made from.
    """
    errors = error.errors(include_url=False)
    unknown = next((found for found in errors if found["type"] in UNKNOWN_KEY), None)
    key = str((unknown or errors[0])["loc"][0])
    if unknown:
        known = [field.name for field in fields(kind)]
        close = closest(key, known)
        hint = f"did you mean `{close}`?" if close else f"known are {', '.join(known)}."
        return f"Unknown setting `{key}`; {hint}"
    return f"`{key}` is {values[key]!r}; it {rule(TypeAdapter(kind).json_schema()['properties'][key])}."


def closest(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant, if there is one."""
    return next(iter(get_close_matches(word, known, n=1)), None)


def rule(schema: Mapping[str, Any]) -> str:
    """What a value can be, as its JSON schema says: `must be a whole number, at least 1`."""
    if choices := schema.get("enum"):
        return f"can be {' or '.join(choices)}"
    return f"must be {_kind(schema)}"


def _kind(schema: Mapping[str, Any]) -> str:
    if described := schema.get("description"):
        return str(described)
    if choices := schema.get("enum"):
        return " or ".join(choices)
    if options := schema.get("anyOf"):
        return ", or ".join(map(_kind, options))
    limits = [f"{words} {schema[name]}" for name, words in _LIMITS.items() if name in schema]
    return ", ".join([_KINDS[schema["type"]], *filter(None, [" and ".join(limits)])])
