"""Every command line in the documentation is one that its program takes, with these very arguments."""

import argparse
import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
VARIABLES = re.compile(r"^[A-Z_]+=")
# What a make target hands its ARGS to.
BEHIND = {"demo": "demo", "serve": "serve", "dev": "dev"}


def code(page: Path) -> Iterator[str]:
    """Each line of a fenced block (a continued one whole, without its comment), and each inline span."""
    text = page.read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.sub(r"(^|\s)#.*", "", line).strip()
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)))


def documented(pattern: str) -> list[tuple[str, str]]:
    """(page, what follows the pattern) of every command that matches, once each."""
    found = {
        (page.name, match[1].strip()): None
        for page in PAGES
        for line in code(page)
        if (match := re.search(pattern + r"(.*)", line))
    }
    return sorted((where, text) for where, text in found if text.strip("…"))


MANAGE = documented(r"(?:^|\s)manage\.py\s+")
DETECTOR = documented(r"(?:^|\s)-m ml_backend\.detector\s+")
MAKE = documented(r"^make\s+(?=[a-z-]+(?:\s|$))")
PROGRAMS = documented(r"(?:^|\s)(?=(?:scripts|benchmarks)/\w+\.(?:py|sh))")


def arguments(text: str) -> list[str]:
    """Of a command line, up to what belongs to the shell; a placeholder stands for what it is called."""
    words = shlex.split(re.split(r"\s[|&;>]|\s\.\.\.|…$", text)[0].replace("…", ""))
    return [word for word in words if word]


def parser_of(name: str) -> argparse.ArgumentParser:
    assert name in get_commands(), f"there is no `manage.py {name}`"
    command: BaseCommand = load_command_class(get_commands()[name], name)
    return command.create_parser("manage.py", name)


def parse(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Placeholders in capitals stand for numbers where one is asked for."""
    types = {option: action.type for action in parser._actions for option in action.option_strings}
    words = [
        "1" if before in types and types[before] in (int, float) and word.isupper() else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    if "--help" not in words:
        parser.parse_args(words)


def test_the_documentation_speaks_of_commands() -> None:
    assert min(len(MANAGE), len(MAKE)) >= 10
    assert min(len(DETECTOR), len(PROGRAMS)) >= 3


@pytest.mark.parametrize(("where", "text"), MANAGE)
def test_management_commands_take_what_is_documented(where: str, text: str) -> None:
    name, *words = arguments(text)
    parser = parser_of(name)
    if words:  # a bare name in running text only names the command
        parse(parser, words)


@pytest.mark.parametrize(("where", "text"), DETECTOR)
def test_the_detector_takes_what_is_documented(where: str, text: str) -> None:
    from ml_backend.detector.commands import command_line

    words = arguments(text)
    if len(words) == 1:
        words.append("--help")
    with pytest.raises(SystemExit) if "--help" in words else nullcontext():
        command_line().parse_args(words)


@pytest.mark.parametrize(("where", "text"), MAKE)
def test_make_has_what_is_documented(where: str, text: str) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    target, *words = arguments(text)
    assert re.search(rf"^{target}:", makefile, flags=re.M), f"make has no target {target}"
    for word in words:
        assert VARIABLES.match(word), f"make takes no {word}"
        name, _, value = word.partition("=")
        assert f"$({name})" in makefile or f"{name} ?=" in makefile, f"the Makefile knows no {name}"
        if name == "ARGS" and target in BEHIND:
            parse(parser_of(BEHIND[target]), shlex.split(value))


@pytest.mark.parametrize(("where", "text"), PROGRAMS)
def test_scripts_and_benchmarks_take_what_is_documented(where: str, text: str) -> None:
    name, *words = arguments(text)
    source = (REPOSITORY / name).read_text()
    for word in words:
        if word.startswith("-"):
            assert f'"{word}"' in source, f"{name} knows no {word}"


def test_files_that_the_recipes_name_are_there() -> None:
    spans = re.findall(r"`([\w./]+/[\w./]*)`", (REPOSITORY / "docs/developing.md").read_text())
    named = [span for span in spans if span.endswith((".py", "/")) and not span.startswith("/")]
    assert len(named) >= 20
    roots = [REPOSITORY, REPOSITORY / "platform", REPOSITORY / "docs"]
    assert not [name for name in named if not any((root / name).exists() for root in roots)]


def test_names_that_the_recipes_name_are_there() -> None:
    """Functions, and constants in capitals."""
    text = (REPOSITORY / "docs/developing.md").read_text()
    names = set(re.findall(r"`([A-Z][A-Z_]{4,}|[a-z]+_[a-z_]+)`", text)) - {"django_db"}
    code = "\n".join(
        path.read_text()
        for room in ("platform", "contracts", "ml_backend", "tests")
        for path in (REPOSITORY / room).rglob("*.py")
    )
    assert len(names) >= 9
    assert not [name for name in names if not re.search(rf"^\s*(?:def {name}\b|{name}\b.* = )", code, flags=re.M)]


API = documented(r"(?:^|\s)(?=(?:GET|POST|PATCH|PUT|DELETE) /api/)")


def test_the_api_has_what_is_documented() -> None:
    """Each path is one of the schema's, with that method."""
    from drf_spectacular.generators import SchemaGenerator

    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    assert API
    for where, text in API:
        method, address = text.split()[:2]
        path = address.partition("?")[0]
        known = next((p for p in paths if re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", p), path)), None)
        assert known, f"{where}: the API has no {path}"
        assert method.lower() in paths[known], f"{where}: {path} takes no {method}"
