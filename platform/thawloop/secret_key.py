"""Django's secret key for installations that give none: made once, kept in a file only its owner reads."""

import os
import secrets
from pathlib import Path


def persistent_secret_key(path: Path) -> str:
    """Return the key in `path`, creating it atomically (mode 0600) when it is not there yet."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(key := secrets.token_urlsafe(50))
    return key
