"""The note a server leaves beside its data, so that a second command finds it instead of starting another one."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from devstack.processes import is_alive


@dataclass(frozen=True)
class Instance:
    """Process id and port of a server; only a hint: whoever reads it must verify that the server is really ours."""

    pid: int
    port: int

    def write(self, path: Path) -> None:
        """Leave the note, atomically."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Instance | None":
        """The note, unless there is none or its process is gone (a stale note is removed)."""
        if not path.exists():
            return None
        note = cls(**json.loads(path.read_text()))
        if is_alive(note.pid):
            return note
        path.unlink(missing_ok=True)
        return None
