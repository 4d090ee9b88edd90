"""Django's secret key for installations that give none: made once, kept in a file only its owner reads."""

import os
import secrets
from pathlib import Path


def persistent_secret_key(path: Path) -> str:
    """Return the key in `path` (mode 0600); processes that start at the same time agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _make(path)
    return path.read_text().strip()


def _make(path: Path) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(50))
    try:
        os.link(partial, path)  # complete at once; fails where another process was faster
    except FileExistsError:
        pass
    finally:
        partial.unlink()
