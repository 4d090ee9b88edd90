"""Reading a TOML table strictly: every mistake is refused with the file, the line and the key it is at."""

import datetime
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from thawloop.core.errors import Refused
from thawloop.setup.lines import KeyPath, key_lines

T = TypeVar("T")

_NAMES: dict[type, str] = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    datetime.date: "a date such as 2021-08-21",
    list: "a list in [ ]",
    dict: "a table",
}


class CampaignFileError(Refused):
    """A campaign file cannot be used; the message names the file, the line and the key."""


class Table:
    """One table of a TOML file. Keys are asked for one by one; `finish` refuses those nobody asked for."""

    def __init__(self, source: Path, values: Mapping[str, Any], path: KeyPath, lines: Mapping[KeyPath, int]) -> None:
        self._source = source
        self._values = values
        self._path = path
        self._lines = lines
        self._known: list[str] = []

    @classmethod
    def read(cls, source: Path) -> "Table":
        """Parse a file.

        Raises:
            CampaignFileError: it cannot be read or is not valid TOML (the line is named).
        """
        try:
            text = source.read_text(encoding="utf-8")
        except OSError as error:
            raise CampaignFileError(f"{source}: the campaign file cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise CampaignFileError(
                f"{source}: not UTF-8 text (byte {error.start}); save the file as UTF-8."
            ) from error
        text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CampaignFileError(f"{source}: not valid TOML: {error}.") from error
        return cls(source, values, (), key_lines(text))

    @property
    def keys(self) -> list[str]:
        """The keys that the file gives, in its order."""
        return list(self._values)

    def know(self, *keys: str) -> None:
        """Say which keys may stand here, so that none of them is taken for a typo of another."""
        for key in keys:
            self._ask(key)

    def has(self, key: str) -> bool:
        """Whether the file gives this key."""
        self._ask(key)
        return key in self._values

    def refuse(self, sentence: str, key: str | int | None = None) -> NoReturn:
        """Refuse the file because of a key (or of the table as a whole)."""
        path = self._path if key is None else (*self._path, key)
        while path and path not in self._lines:
            path = path[:-1]
        place = f"{self._source}, line {self._lines[path]}" if path else f"{self._source}"
        raise CampaignFileError(f"{place}: {sentence}")

    def require(self, key: str) -> None:
        """Refuse the file when a key is missing."""
        if not self.has(key):
            close = self._close(key, [name for name in self._values if name not in self._known])
            if close:
                self.refuse(f"unknown key `{close}` in {self._name()}; did you mean `{key}`?", close)
            self.refuse(f"{self._name()} lacks the key `{key}`.")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """A value of one type; without a default the key is required. A whole number is also a `float`."""
        if default is None:
            self.require(key)
        if not self.has(key):
            return default  # type: ignore[return-value]  # required keys do not come here
        return self._checked(self._values[key], kind, key)

    def optional(self, key: str, kind: type[T]) -> T | None:
        """A value of one type, or None."""
        return self.get(key, kind) if self.has(key) else None

    def name(
        self,
        key: str,
        *,
        longest: int,
        default: str | None = None,
        pattern: str = r"[a-z0-9][a-z0-9_-]*",
        allowed: str = "lower-case letters, digits, `_` and `-`",
    ) -> str:
        """A name that is safe in keys, paths and URLs."""
        value = self.get(key, str, default)
        if not re.fullmatch(pattern, value) or len(value) > longest:
            self.refuse(f"`{key}` is {value!r}; it may hold {allowed}, {longest} characters at most.", key)
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of a few words."""
        value = self.get(key, str, default)
        if value not in choices:
            close = self._close(value, choices)
            hint = f" Did you mean `{close}`?" if close else ""
            self.refuse(f"`{key}` is {value!r}; it can be {_listed(choices)}.{hint}", key)
        return value

    def items(self, key: str, kind: type[T], *, minimum: int = 1) -> tuple[T, ...]:
        """A list whose items are of one type; one item alone may stand without the brackets."""
        self.require(key)
        value = self._values[key]
        found = value if isinstance(value, list) else [value]
        if len(found) < minimum:
            self.refuse(f"`{key}` is empty; give at least {minimum}.", key)
        return tuple(self._checked(item, kind, key) for item in found)

    def is_table(self, key: str) -> bool:
        """Whether the file gives this key as a table."""
        return self.has(key) and isinstance(self._values[key], dict)

    def item(self, key: str, position: int) -> "Table":
        """A table that is one item of a list."""
        return Table(self._source, self._values[key][position], (*self._path, key, position), self._lines)

    def table(self, key: str) -> "Table":
        """A table inside this one; an empty one when the file does not give it."""
        values = self._checked(self._values[key], dict, key) if self.has(key) else {}
        return Table(self._source, values, (*self._path, key), self._lines)

    def tables(self, key: str, *, minimum: int = 0) -> list["Table"]:
        """The tables of an array such as `[[modalities]]`."""
        found = self._values.get(key, []) if self.has(key) else []
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            self.refuse(f"`{key}` must be written as `[[{key}]]`, once for each.", key)
        if len(found) < minimum:
            self.require(key)
            self.refuse(f"at least {minimum} `[[{key}]]` table is needed.", key)
        return [Table(self._source, item, (*self._path, key, n), self._lines) for n, item in enumerate(found)]

    def raw(self, known: Sequence[str]) -> dict[str, Any]:
        """All values as they stand, after refusing keys that are not known."""
        self._known.extend(known)
        self.finish()
        return dict(self._values)

    def finish(self) -> None:
        """Refuse the first key that was never asked for, naming the nearest one that could have been meant."""
        for key in self._values:
            if key not in self._known:
                close = self._close(key, self._known)
                hint = f"did you mean `{close}`?" if close else f"known here: {', '.join(sorted(self._known))}."
                self.refuse(f"unknown key `{key}` in {self._name()}; {hint}", key)

    def _ask(self, key: str) -> None:
        if key not in self._known:
            self._known.append(key)

    def _checked(self, value: Any, kind: type[T], key: str) -> T:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)  # type: ignore[return-value]
        is_wrong_bool = isinstance(value, bool) and kind is not bool
        is_moment = isinstance(value, datetime.datetime) and kind is datetime.date
        if is_wrong_bool or is_moment or not isinstance(value, kind):
            shown = repr(value) if len(repr(value)) <= 60 else type(value).__name__
            self.refuse(f"`{key}` must be {_NAMES[kind]}, not {shown}.", key)
        return value

    def _name(self) -> str:
        words = [f"`[{part}]`" if n == 0 else str(part) for n, part in enumerate(self._path) if isinstance(part, str)]
        if not words:
            return "the file"
        number = next((part for part in self._path if isinstance(part, int)), None)
        place = words[0] if number is None else f"{words[0].replace('[', '[[').replace(']', ']]')} number {number + 1}"
        return " ".join([place, *words[1:]])

    @staticmethod
    def _close(word: str, candidates: Sequence[str]) -> str | None:
        return next(iter(difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)), None)


def _listed(words: Sequence[str]) -> str:
    return (
        " or ".join([", ".join(f"`{word}`" for word in words[:-1]), f"`{words[-1]}`"]) if len(words) > 1 else words[0]
    )
