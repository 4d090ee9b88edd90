"""On which line each key of a TOML file stands. `tomllib` does not say, and a typo is found by its line."""

import re
import tomllib

KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
    (?P<skip>[ \t\r]+|\#[^\n]*)
  | (?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
  | (?P<newline>\n)
  | (?P<mark>[\[\]{}=,.])
  | (?P<word>[^\s\[\]{}=,\#"'.]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map each key and table of a valid TOML text to its 1-based line.

    A path holds table names and keys as text and positions in arrays as numbers, e.g. `("modalities", 0, "files")`.
    """
    return _Walker(text).walk()


class _Walker:
    """Reads the tokens of a text that `tomllib` has accepted already, so it need not doubt what it sees."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            kind = str(match.lastgroup)
            if kind != "skip":
                self._tokens.append((kind, match.group(), line))
            line += match.group().count("\n")
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._arrays: dict[KeyPath, int] = {}

    def walk(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._at < len(self._tokens):
            kind, text, line = self._tokens[self._at]
            if kind == "newline":
                self._at += 1
            elif text == "[" and kind == "mark":
                table = self._header(line)
            else:
                self._pair(table)
        return self._lines

    def _peek(self) -> str:
        kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("newline", "\n", 0)
        return text if kind in ("mark", "newline") else ""

    def _header(self, line: int) -> KeyPath:
        self._at += 1
        is_array = self._peek() == "["
        self._at += is_array
        names = self._key()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for depth, name in enumerate(names):
            path = (*path, name)
            self._lines.setdefault(path, line)
            if is_array and depth == len(names) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
                self._lines.setdefault(path, line)
        return path

    def _key(self) -> list[str]:
        names: list[str] = []
        while True:
            kind, text, _ = self._tokens[self._at]
            names.append(tomllib.loads(f"key = {text}")["key"] if kind == "string" else text)
            self._at += 1
            if self._peek() != ".":
                return names
            self._at += 1

    def _pair(self, table: KeyPath) -> None:
        line = self._tokens[self._at][2]
        path = table
        for name in self._key():
            path = (*path, name)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._peek()
        if opening not in ("[", "{"):
            while self._peek() not in ("\n", ",", "]", "}"):  # a number with a point is several tokens
                self._at += 1
            return
        self._at += 1
        position = 0
        while self._peek() not in ("]", "}"):
            if self._peek() in (",", "\n"):
                self._at += 1
            elif opening == "{":
                self._pair(path)
            else:
                self._lines[(*path, position)] = self._tokens[self._at][2]
                self._value((*path, position))
                position += 1
        self._at += 1
