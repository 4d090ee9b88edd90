"""The walks in docs/architecture.md pass functions that are there."""

import re
from pathlib import Path

import pytest
from django.utils.module_loading import import_string

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
NAMES = re.compile(r"`((?:contracts|thawloop|labeling|ml_backend)\.[a-z_.]+\.[A-Za-z_]+)`")
WALKS = PAGE.read_text().partition("## Four walks")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(set(NAMES.findall(WALKS))))
def test_a_walk_passes_what_is_there(name: str) -> None:
    assert callable(import_string(name))


def test_there_are_four_walks_of_some_length() -> None:
    assert [len(re.findall(r"^\| \d+ \|", walk, re.MULTILINE)) >= 6 for walk in WALKS.split("\n**")[1:]] == [True] * 4
