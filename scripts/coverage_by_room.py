"""Prints how much of each room the tests ran, from coverage's JSON report.

`python scripts/coverage_by_room.py coverage.json`. A room is the longest name below that a file's path begins with.
"""

import json
import sys
from pathlib import Path

PLATFORM = ("core", "catalog", "campaigns", "registry", "releases", "training", "setup", "dashboard", "serving")
ROOMS = {
    "contracts": "contracts",
    **{f"platform/thawloop/{name}": f"thawloop.{name}" for name in PLATFORM},
    "platform/thawloop": "thawloop",
    "labeling/labelstudio": "labeling.labelstudio",
    "labeling": "labeling",
    "ml_backend/detector": "ml_backend.detector",
    "ml_backend/acquisition": "ml_backend.acquisition",
    "ml_backend/server": "ml_backend.server",
    "ml_backend/jobs": "ml_backend.jobs",
    "ml_backend": "ml_backend",
    "devstack": "devstack",
    "demo": "demo",
}


def main(arguments: list[str]) -> int:
    """Print the table of a report; exit code 1 when a file belongs to no room."""
    report = json.loads(Path(arguments[0]).read_text())
    totals, strangers = by_room(report)
    print(table(totals))
    for path in strangers:
        print(f"{path} belongs to no room: add its folder to scripts/coverage_by_room.py.", file=sys.stderr)
    return 1 if strangers else 0


def by_room(report: dict) -> tuple[dict[str, tuple[int, int, int]], list[str]]:
    """(files, statements, statements that ran) of each room, in the order of `ROOMS`; and the paths without a room."""
    totals = dict.fromkeys(ROOMS.values(), (0, 0, 0))
    strangers = []
    for path, file in report["files"].items():
        folder = max((folder for folder in ROOMS if path.startswith(f"{folder}/")), key=len, default=None)
        if folder is None:
            strangers.append(path)
            continue
        files, statements, ran = totals[ROOMS[folder]]
        summary = file["summary"]
        totals[ROOMS[folder]] = (files + 1, statements + summary["num_statements"], ran + summary["covered_lines"])
    return {room: total for room, total in totals.items() if total[0]}, strangers


def table(totals: dict[str, tuple[int, int, int]]) -> str:
    """One line for each room, and one for all of them."""
    everything = tuple(map(sum, zip(*totals.values(), strict=True))) if totals else (0, 0, 0)
    rows = [("room", "files", "statements", "ran")]
    for room, (files, statements, ran) in [*totals.items(), ("all", everything)]:
        share = f"{100 * ran / statements:.1f} %" if statements else "-"
        rows.append((room, str(files), str(statements), share))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name.ljust(widths[0])}  " + "  ".join(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))
        for name, *cells in rows
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
