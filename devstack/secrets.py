"""Generated passwords and tokens, kept in files that only their owner can read."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def password() -> str:
    """192 random bits in letters, digits, `-` and `_`: safe unquoted in URLs, SQL literals and configuration files."""
    return secrets.token_urlsafe(24)


def hex_token() -> str:
    """40 hexadecimal digits, the form of Label Studio's and DRF's tokens."""
    return secrets.token_hex(20)


class SecretStore:
    """A folder (mode 0700) with one file (mode 0600) per secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: set[str] = set()  # names of the secrets that this process made: it may tell them once

    def get(self, name: str, make: Callable[[], str] = password) -> str:
        """Return the secret of that name, making it on first use; concurrent callers get the same one."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / name
        if not path.exists():
            self._create(path, make())
        return path.read_text().strip()

    def _create(self, path: Path, text: str) -> None:
        partial = _partial(path, text)
        try:
            os.link(partial, path)  # unlike rename, fails when another process was faster
            self.made.add(path.name)
        except FileExistsError:
            pass
        finally:
            partial.unlink()


def write_private(path: Path, text: str) -> Path:
    """Write (or replace) a file that contains secrets: mode 0600, atomically."""
    return _partial(path, text).replace(path)


def keep_private(root: Path) -> None:
    """Make a folder that nobody else may enter, and everything that this process and its children write private.

    What an earlier version left readable below it is closed, too; the folder itself last, so that a run that was
    killed begins again.
    """
    os.umask(0o077)
    root.mkdir(parents=True, exist_ok=True)
    if root.stat().st_mode & 0o077:
        for path in [*root.rglob("*"), root]:
            if not path.is_symlink() and (mode := path.stat().st_mode) & 0o077:
                path.chmod(mode & 0o7700)


def _partial(path: Path, text: str) -> Path:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    return partial
