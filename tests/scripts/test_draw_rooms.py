"""The picture of the rooms: what it refuses, and what it says."""

import xml.etree.ElementTree as ElementTree

import pytest

from scripts import draw_rooms

LAYERS = [("demo",), ("labeling", "ml_backend.jobs"), ("contracts",)]


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("contracts", "demo"), "contracts imports demo, which is not below it."),
        (("labeling", "ml_backend.jobs"), "labeling imports ml_backend.jobs, which is not below it."),
    ],
)
def test_an_import_that_does_not_go_down_is_named(pair: tuple[str, str], words: str) -> None:
    assert draw_rooms.upward({("demo", "contracts"): 1, pair: 1}, LAYERS) == [words]


def test_a_circle_is_named() -> None:
    (sentence,) = draw_rooms.circles({("a", "b"): 1, ("b", "c"): 1, ("c", "a"): 1, ("a", "d"): 1})
    assert all(name in sentence for name in "abc")
    assert draw_rooms.circles({("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 1}) == []


def test_the_code_keeps_the_order_and_a_module_counts_once_for_each_room_it_imports() -> None:
    layers = draw_rooms.read_layers()
    imports, sizes = draw_rooms.read_imports([room for layer in layers for room in layer])
    assert draw_rooms.upward(imports, layers) == []
    assert sizes["contracts"][0] == len(list((draw_rooms.REPOSITORY / "contracts").rglob("*.py")))
    assert all(count <= sizes[importer][0] for (importer, _imported), count in imports.items())


def test_the_picture_shows_each_room_and_each_number() -> None:
    sizes = {"demo": (3, 1234), "labeling": (1, 10), "ml_backend.jobs": (1, 10), "contracts": (1, 10)}
    drawing = draw_rooms.draw(LAYERS, {("demo", "labeling"): 2}, sizes)
    words = "".join(ElementTree.fromstring(drawing).itertext())
    assert all(room in words for room in sizes)
    assert "3 files, 1,200 lines" in words
    assert "2 modules of demo import labeling" in words
