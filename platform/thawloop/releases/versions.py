"""The version of a release: X.Y.Z as in the ARTS data set (Scientific Data 12:18, 2025): source, rows added, edits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Members:
    """What a release consists of.

    Attributes:
        tiles: Tile id to (split, id of the annotation that labelled it or None).
        labels: Label id to revision id.
        sources: Where labels come from: `import:<checksum>`, `annotations`.
        shape: Everything else that makes the files what they are: classes, modalities, grid.
    """

    tiles: dict[int, tuple[str, int | None]]
    labels: dict[str, int]
    sources: frozenset[str]
    shape: str


def next_version(version: str | None, before: Members | None, after: Members) -> str:
    """The version that follows `version`, given what changed; 1.0.0 is the first.

    X counts new sources; Y tiles, labels, classes or modalities added or gone; Z edits that leave their number alone.
    """
    if version is None or before is None:
        return "1.0.0"
    x, y, z = (int(part) for part in version.split("."))
    if after.sources - before.sources:
        return f"{x + 1}.0.0"
    if after.tiles.keys() != before.tiles.keys() or after.labels.keys() != before.labels.keys():
        return f"{x}.{y + 1}.0"
    if after.shape != before.shape:
        return f"{x}.{y + 1}.0"
    return f"{x}.{y}.{z + 1}"
