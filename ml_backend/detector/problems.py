"""Problems of a dataset, passed to a callback: a training stops at the first, ``check`` collects them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from contracts.sentences import one_sentence
from ml_backend.detector.errors import DatasetError

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One problem of a dataset.

    Attributes:
        kind: a short name, the same for all problems of one kind.
        text: a sentence that names the file and the remedy.
        file: where the problem is.
        tile: file_name of the tile, if it concerns one.
        annotation: id of the annotation, if it concerns one.
    """

    kind: str
    text: str
    file: Path
    tile: str = ""
    annotation: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", one_sentence(self.text))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "file": str(self.file)}


Report = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """Raise on the first problem: for work that cannot continue after it.

    Raises:
        DatasetError: always.
    """
    raise DatasetError(problem.text)


def attempt(report: Report, kind: str, file: Path, work: Callable[[], T], tile: str = "") -> T | None:
    """Call ``work``; if it raises a DatasetError, report that and return None."""
    try:
        return work()
    except DatasetError as error:
        report(Problem(kind, str(error), file, tile))
        return None


def table(problems: Iterable[Problem], shown: int) -> str:
    """Problems as text: how many there are of each kind, and the first ``shown`` as sentences."""
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    lines = []
    for kind, members in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(members):>6}  {kind}")
        lines += [f"        {member.text}" for member in members[:shown]]
        if len(members) > shown:
            lines.append(f"        ... and {len(members) - shown} more (--json has all)")
    return "\n".join(lines)


def counted(problems: Iterable[Problem]) -> Mapping[str, int]:
    """The number of problems of each kind, largest first."""
    return dict(Counter(problem.kind for problem in problems).most_common())
