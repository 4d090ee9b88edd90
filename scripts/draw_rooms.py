"""Draws docs/rooms.svg: the rooms in their layers, and how many modules of one import another.

`python scripts/draw_rooms.py` writes it; `--check` says whether the committed picture is up to date. The layers are
those of import-linter's contract in pyproject.toml. An import that runs up, or a circle, is an error in both cases.
"""

import argparse
import sys
import tomllib
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from html import escape
from pathlib import Path

import grimp

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURE = REPOSITORY / "docs" / "rooms.svg"
# What the contract's list of layers leaves out: what computes beside the platform, and what everybody may import.
BESIDE = ("ml_backend.acquisition", "ml_backend.detector")
LOWEST = ("contracts",)
KINDS = {"thawloop": "platform", "labeling": "platform", "ml_backend": "model", "contracts": "both"}  # else: checkout
LEGEND = {"checkout": "of a checkout", "platform": "platform (no torch)", "model": "model", "both": "both sides"}

COLUMN, ROW = 54, 48  # pixels between rooms
BOX_WIDTH, BOX_HEIGHT = 180, 36
TOP, MARGIN = 88, 24
STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1d2b30 }
.paper { fill: #fbfcfc } .layer { fill: #eef2f3 }
.title { font-size: 20px; font-weight: 650 } .small { font-size: 11px; fill: #586a71 }
.name { font-size: 12.5px; font-weight: 600 } .count { font-size: 11px; text-anchor: middle }
.line { fill: none; stroke: #a9b8be; stroke-width: 1.4 } .head { fill: #7d8f96 }
.dot, .box { stroke-width: 1.4 }
.platform { fill: #d9eef0; stroke: #1f7a86 } .model { fill: #fde6cf; stroke: #b8661b }
.both { fill: #e3e0f5; stroke: #5a4fa8 } .checkout { fill: #e8ecee; stroke: #6b7b82 }
@media (prefers-color-scheme: dark) {
text { fill: #e4ecee } .paper { fill: #12191c } .layer { fill: #1a2327 } .small { fill: #9db0b7 }
.line { stroke: #4b5d65 } .head { fill: #8298a1 }
.platform { fill: #123f46; stroke: #4fb3c0 } .model { fill: #4a2c10; stroke: #e09a55 }
.both { fill: #2c2757; stroke: #9c92e6 } .checkout { fill: #2a3438; stroke: #8a9ba2 }
}
"""


def main() -> int:
    """Write or check; exit code 1 when the picture is old or imports do not go down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say whether the picture is up to date")
    check = parser.parse_args().check
    layers = read_layers()
    rooms = [room for layer in layers for room in layer]
    imports, sizes = read_imports(rooms)
    if problems := [*upward(imports, layers), *circles(imports)]:
        print("\n".join(problems), file=sys.stderr)
        return 1
    picture = draw(layers, imports, sizes)
    if not check:
        PICTURE.write_text(picture)
    elif not PICTURE.exists() or PICTURE.read_text() != picture:
        print(f"{PICTURE.relative_to(REPOSITORY)} is old: run `scripts/draw_rooms.py`.", file=sys.stderr)
        return 1
    return 0


def read_layers() -> list[tuple[str, ...]]:
    """The rooms from the highest layer to the lowest."""
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    stack = next(contract["layers"] for contract in config["contracts"] if contract["type"] == "layers")
    layers = [tuple(name.strip() for name in layer.split("|")) for layer in stack]
    return [*layers, BESIDE, LOWEST]


def read_imports(rooms: list[str]) -> tuple[dict[tuple[str, str], int], dict[str, tuple[int, int]]]:
    """How many modules of one room import another, by (importer, imported); (files, lines) of each room."""
    packages = sorted({room.partition(".")[0] for room in rooms})
    graph = grimp.build_graph(*packages, cache_dir=None)
    pairs: set[tuple[str, str, str]] = set()
    sizes = dict.fromkeys(rooms, (0, 0))
    for module in graph.modules:
        if (room := room_of(module, rooms)) is None:
            continue
        file = source(module)
        files, lines = sizes[room]
        sizes[room] = (files + 1, lines + len(file.read_text().splitlines()))
        for imported in graph.find_modules_directly_imported_by(module):
            target = room_of(imported, rooms)
            if target is not None and target != room:
                pairs.add((room, target, module))
    return dict(Counter((room, target) for room, target, _module in pairs)), sizes


def room_of(module: str, rooms: list[str]) -> str | None:
    """The room that a module belongs to; None for the few that wire all rooms together (settings, addresses)."""
    return next((room for room in rooms if f"{module}.".startswith(f"{room}.")), None)


def source(module: str) -> Path:
    """The file of a module."""
    base = REPOSITORY / ("platform" if module.startswith("thawloop") else ".") / module.replace(".", "/")
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def upward(imports: dict[tuple[str, str], int], layers: list[tuple[str, ...]]) -> list[str]:
    """One sentence for each room that imports one of its own layer or of a higher one."""
    depth = {room: index for index, layer in enumerate(layers) for room in layer}
    wrong = [pair for pair in imports if depth[pair[0]] >= depth[pair[1]] and not set(pair) <= set(BESIDE)]
    return [f"{importer} imports {imported}, which is not below it." for importer, imported in sorted(wrong)]


def circles(imports: dict[tuple[str, str], int]) -> list[str]:
    """One sentence when rooms import each other in a circle."""
    below: dict[str, set[str]] = {}
    for importer, imported in imports:
        below.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        return [f"Imports go round in a circle: {' is imported by '.join(error.args[1])}."]
    return []


def draw(layers: list[tuple[str, ...]], imports: dict[tuple[str, str], int], sizes: dict[str, tuple[int, int]]) -> str:
    """The picture: a staircase of rooms.

    A line leaves each box to the right. Where it crosses the line that comes down to a room it imports, there is a dot
    with the number of importing modules.
    """
    rooms = [room for layer in layers for room in layer]
    across = {room: MARGIN + BOX_WIDTH - COLUMN // 2 + COLUMN * index for index, room in enumerate(rooms)}
    down = {room: TOP + ROW // 2 + ROW * index for index, room in enumerate(rooms)}
    width, height = across[rooms[-1]] + COLUMN // 2 + MARGIN, TOP + ROW * len(rooms) + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            'aria-label="The rooms of ThawLoop in their layers, and how many modules of one import another">',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{width}" height="{height}" rx="12"/>',
            *stripes(layers, width),
            f'<text class="title" x="{MARGIN}" y="40">Rooms, and what they import</text>',
            f'<text class="small" x="{MARGIN}" y="60">A number is how many modules of the room in its row import the '
            "room below it. Every arrow runs down.</text>",
            *legend(width),
            *lines(rooms, imports, across, down),
            *(dot(pair, count, across, down) for pair, count in sorted(imports.items())),
            *(box(room, sizes[room], across[room], down[room]) for room in rooms),
            "</svg>\n",
        ]
    )


def stripes(layers: list[tuple[str, ...]], width: int) -> list[str]:
    """Every other layer on a ground of its own."""
    drawn, first = [], 0
    for index, layer in enumerate(layers):
        if index % 2 == 0:
            place = f'y="{TOP + ROW * first}" width="{width}" height="{ROW * len(layer)}"'
            drawn.append(f'<rect class="layer" x="0" {place}/>')
        first += len(layer)
    return drawn


def legend(width: int) -> list[str]:
    """What the colours mean, in the upper right corner."""
    x, drawn = width - MARGIN, []
    for name, words in reversed(LEGEND.items()):
        x -= 36 + 6 * len(words)
        drawn.append(f'<rect class="{name}" x="{x}" y="29" width="12" height="12" rx="3"/>')
        drawn.append(f'<text class="small" x="{x + 18}" y="39">{words}</text>')
    return drawn


def lines(
    rooms: list[str], imports: dict[tuple[str, str], int], across: dict[str, int], down: dict[str, int]
) -> list[str]:
    """From each box to the right, as far as it imports; and to each box from above, from its highest importer."""
    drawn = []
    for room in rooms:
        if imported := [across[target] for importer, target in imports if importer == room]:
            drawn.append(f'<path class="line" d="M{across[room] + COLUMN // 2} {down[room]}H{max(imported)}"/>')
        if importers := [down[importer] for importer, target in imports if target == room]:
            x, end = across[room], down[room] - BOX_HEIGHT // 2 - 1
            drawn.append(f'<path class="line" d="M{x} {min(importers)}V{end - 6}"/>')
            drawn.append(f'<path class="head" d="M{x - 5} {end - 8}h10l-5 8z"/>')
    return drawn


def dot(pair: tuple[str, str], count: int, across: dict[str, int], down: dict[str, int]) -> str:
    """How many modules of one room import another."""
    importer, imported = pair
    x, y = across[imported], down[importer]
    words = f"{count} {'module' if count == 1 else 'modules'} of {importer} import {imported}"
    return (
        f'<g><title>{escape(words)}</title><circle class="dot {kind(importer)}" cx="{x}" cy="{y}" r="11"/>'
        f'<text class="count" x="{x}" y="{y + 4}">{count}</text></g>'
    )


def box(room: str, size: tuple[int, int], x: int, y: int) -> str:
    """A room: its name, its files and lines (two digits of them: not every commit makes the picture old)."""
    left = x + COLUMN // 2 - BOX_WIDTH
    files, lines_of_code = size
    about = float(f"{lines_of_code:.2g}")
    return (
        f'<rect class="box {kind(room)}" x="{left}" y="{y - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="7"/>'
        f'<text class="name" x="{left + 10}" y="{y - 2}">{escape(room)}</text>'
        f'<text class="small" x="{left + 10}" y="{y + 12}">{files} files, {about:,.0f} lines</text>'
    )


def kind(room: str) -> str:
    """The class of a room's colour."""
    return KINDS.get(room.partition(".")[0], "checkout")


if __name__ == "__main__":
    sys.exit(main())
