"""What the tables of a campaign file have in common: their model, and the kinds of values that stand in them."""

import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from contracts.settings import STRICT

REAL_DATA = "${THAWLOOP_REAL_DATA}"
MISTAKE = "mistake"  # the type of errors whose message is a whole sentence

T = TypeVar("T")
Mistake: TypeAlias = tuple[tuple[str | int, ...], str]


class Table(BaseModel):
    """A table of the file: each key is a field, others are refused.

    Paths are understood relative to the file; validation needs it as context: `{"file": Path}`.
    """

    model_config = ConfigDict(frozen=True, **STRICT)

    def mistakes(self) -> Iterator[Mistake]:
        """What does not fit together though each value is possible: keys that lead to it from here, and a sentence."""
        return iter(())

    @model_validator(mode="after")
    def _refuse_mistakes(self) -> Self:
        found = [
            InitErrorDetails(type=PydanticCustomError(MISTAKE, "{text}", {"text": text}), loc=keys, input=None)
            for keys, text in self.mistakes()
        ]
        if found:
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self


def _tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


def _uri(text: str, info: ValidationInfo) -> str:
    if text.startswith(REAL_DATA):
        folder = os.environ.get("THAWLOOP_REAL_DATA")
        if not folder:
            raise ValueError("THAWLOOP_REAL_DATA is not set: export THAWLOOP_REAL_DATA=FOLDER")
        text = folder + text.removeprefix(REAL_DATA)
    if "$" in text:
        raise ValueError(f"only {REAL_DATA} is replaced in paths, and only at the beginning")
    if not text:
        raise ValueError("give the path of a file")
    context: Any = info.context
    return text if is_remote(text) else os.path.normpath(context["file"].absolute().parent / text)


def _local(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    uri = _uri(value, info)
    if is_remote(uri):
        raise ValueError("it must be a local file")
    return Path(uri)


def is_remote(uri: str) -> bool:
    """Whether GDAL reads it from elsewhere than a path of this machine."""
    return "://" in uri or uri.startswith("/vsi")


Listed = Annotated[tuple[T, ...], BeforeValidator(_tuple_of)]
OneOrMore = Annotated[tuple[T, ...], Field(min_length=1), BeforeValidator(_one_or_more)]  # one alone needs no brackets

Uri = Annotated[str, AfterValidator(_uri)]
LocalFile = Annotated[Path, BeforeValidator(_local), Field(description="the path of a file")]
Date = Annotated[datetime.date, Field(description="a date such as 2021-08-21")]

_NAME = "lower-case letters, digits, `_` and `-`"
_NAME_PATTERN = "^[a-z0-9][a-z0-9_-]*$"
ShortName = Annotated[
    str, Field(pattern=_NAME_PATTERN, max_length=20, description=f"a name of {_NAME}, 20 characters at most")
]
Name = Annotated[
    str, Field(pattern=_NAME_PATTERN, max_length=50, description=f"a name of {_NAME}, 50 characters at most")
]
LongName = Annotated[
    str, Field(pattern=_NAME_PATTERN, max_length=70, description=f"a name of {_NAME}, 70 characters at most")
]
