"""What pydantic finds wrong in a campaign file, as sentences that name line and key."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contracts.settings import UNKNOWN_KEY, closest, rule
from thawloop.setup.lines import KeyPath
from thawloop.setup.table import MISTAKE

_FOLLOWS_FROM_ANOTHER = "default_factory_not_called"
_EMPTY = "too_short"  # also of a list whose items are wrong


class Mistakes:
    """The mistakes in a file.

    Args:
        error: What pydantic found.
        schema: The JSON schema of the file.
        values: What the file holds.
        lines: The line of each of its keys.
    """

    def __init__(
        self, error: ValidationError, schema: Mapping[str, Any], values: Mapping[str, Any], lines: Mapping[KeyPath, int]
    ) -> None:
        found = [item for item in error.errors(include_url=False) if item["type"] != _FOLLOWS_FROM_ANOTHER]
        outer = {item["loc"][:n] for item in found for n in range(len(item["loc"]))}
        self._errors = [item for item in found if item["type"] != _EMPTY or item["loc"] not in outer]
        self._schema = schema
        self._values = values
        self._lines = lines

    def listed(self, path: Path) -> str:
        """All by their lines, `peel.toml, line 3: ... Line 7: ...`; what the file lacks altogether has no line."""
        (line, first), *others = sorted(set(self._sentences()))
        place = f"{path}, line {line}" if line else f"{path}"
        rest = [f"Line {line}: {sentence}" if line else sentence[0].upper() + sentence[1:] for line, sentence in others]
        return " ".join([f"{place}: {first}", *rest])

    def _sentences(self) -> Iterator[tuple[int, str]]:
        """Line (or 0) and sentence of each; a key that is missing because it is mistyped is one mistake."""
        mistyped = set()
        for item in self._errors:
            if item["type"] in UNKNOWN_KEY:
                table, key = item["loc"][:-1], item["loc"][-1]
                known = sorted({name for schema in self._schemas(table) for name in schema.get("properties", {})})
                close = closest(str(key), known)
                mistyped.add((*table, close))
                hint = f"did you mean `{close}`?" if close else f"known here: {', '.join(known)}."
                yield self._at(item["loc"], f"unknown key `{key}` in {_table(self._written(table))}; {hint}")
        for item in self._errors:
            if item["type"] not in UNKNOWN_KEY and item["loc"] not in mistyped:
                yield self._at(item["loc"], self._sentence(item))

    def _at(self, loc: KeyPath, sentence: str) -> tuple[int, str]:
        return self._lines.get(self._written(loc), 0), sentence

    def _sentence(self, item: Mapping[str, Any]) -> str:
        loc, written = item["loc"], self._written(item["loc"])
        if item["type"] == MISTAKE:
            return str(item["msg"])
        if item["type"] == "missing":
            return f"{_table(written)} lacks the key `{loc[-1]}`."
        key = next(part for part in reversed(written or loc) if isinstance(part, str))
        shown = repr(item["input"]) if len(repr(item["input"])) <= 60 else f"a {type(item['input']).__name__}"
        if item["type"] == _EMPTY:
            return f"`{key}` is empty; give at least {item['ctx']['min_length']}."
        value = f"`{key}` {'holds' if isinstance(written[-1], int) else 'is'} {shown}"
        if item["type"] == "value_error":
            return f"{value}; {item['ctx']['error']}."
        schemas = self._schemas(loc)
        if any(schema.get("type") == "array" and "$ref" in schema["items"] for schema in schemas):
            return f"{value}; it must be written as `[[{key}]]`, once for each."
        return f"{value}; it {rule({'anyOf': schemas} if len(schemas) > 1 else schemas[0])}."

    def _written(self, loc: KeyPath) -> KeyPath:
        """The parts that the file has. It names no members of unions, and no place of an item without brackets."""
        path, value = [], self._values
        for part in loc:
            if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
                path.append(part)
                value = value[part]
        return tuple(path)

    def _schemas(self, loc: KeyPath) -> list[Mapping[str, Any]]:
        """What may stand there: one schema, or several alternatives."""
        found = self._alternatives(self._schema)
        for part in loc:
            inner = [schema["properties"][part] for schema in found if part in schema.get("properties", {})]
            if isinstance(part, int):
                inner = [schema["items"] for schema in found if "items" in schema]
            if inner:  # otherwise it names a member of a union
                found = [alternative for schema in inner for alternative in self._alternatives(schema)]
        return found

    def _alternatives(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if "$ref" in schema:
            target = self._schema["$defs"][schema["$ref"].rpartition("/")[2]]
            return [{**target, "description": schema.get("description")}]  # its own is for programmers
        options = schema.get("oneOf") or schema.get("anyOf")
        if options and "description" not in schema:
            given = [option for option in options if option.get("type") != "null"]  # TOML has no null
            return [alternative for option in given for alternative in self._alternatives(option)]
        return [schema]


def _table(path: KeyPath) -> str:
    """How people call a table: `[grid]`, `[[modalities]]` number 2."""
    if not path:
        return "the file"
    section, *rest = path
    if rest and isinstance(rest[0], int):
        place, rest = f"`[[{section}]]` number {rest[0] + 1}", rest[1:]
    else:
        place = f"`[{section}]`"
    return " ".join([place, *(part for part in rest if isinstance(part, str))])
