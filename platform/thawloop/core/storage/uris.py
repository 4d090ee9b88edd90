"""Which files may be read at a user's request: those below the data roots only."""

import re
from pathlib import Path
from urllib.parse import unquote

from django.conf import settings

from thawloop.core.errors import Refused

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UriRefused(Refused):
    """A path or URL outside what this installation may read."""


def checked_uri(uri: str) -> str:
    """Return what GDAL may open for `uri`: an absolute path without symlinks, or `/vsis3/bucket/key`.

    Allowed are files below the folders, and `s3://` URLs below the prefixes, that THAWLOOP_DATA_ROOTS lists. Every
    other scheme, and GDAL's virtual file systems and connection strings, are refused: they could read anything.

    Raises:
        UriRefused: it is not allowed, or there is no such file.
    """
    if not uri or _CONTROL.search(uri):
        raise UriRefused(f"{uri!r} is not a path: it is empty or contains control characters.")
    if uri.startswith("s3://"):
        return _checked_s3(uri)
    if uri.startswith("file://"):
        uri = unquote(uri.removeprefix("file://"))
        if not uri.startswith("/") or _CONTROL.search(uri):
            raise UriRefused(f"file://{uri} is not a path: write it as file:///absolute/path.")
    elif match := _SCHEME.match(uri):
        raise UriRefused(f"{uri!r} cannot be read: {match[0]!r} is not allowed; give a path or s3:// URL. {_roots()}")
    if uri.startswith("/vsi"):
        raise UriRefused(f"{uri!r} cannot be read: GDAL's virtual file systems are not allowed. {_roots()}")
    return _checked_path(uri)


def _checked_path(uri: str) -> str:
    path = Path(uri).resolve()
    roots = [Path(root).resolve() for root in settings.THAWLOOP_DATA_ROOTS if "://" not in root]
    if not any(path.is_relative_to(root) for root in roots):
        leads_to = f" (it leads to {path})" if str(path) != uri else ""
        raise UriRefused(f"{uri!r}{leads_to} lies outside the data roots. {_roots()}")
    if not path.exists():
        raise UriRefused(f"There is no file {uri!r}: check the path.")
    if not (path.is_file() or path.is_dir()):  # a pipe would keep us waiting for ever
        raise UriRefused(f"{uri!r} is neither a file nor a folder.")
    return str(path)


def _checked_s3(uri: str) -> str:
    key = uri.removeprefix("s3://")
    if re.search(r"//|[?#\\%]|(^|/)\.{1,2}(/|$)", key) or key.endswith("/"):
        raise UriRefused(
            f"{uri!r} is not a plain s3:// URL: write s3://bucket/path/to/file without `..`, `?` or escapes."
        )
    prefixes = [root.rstrip("/") + "/" for root in settings.THAWLOOP_DATA_ROOTS if root.startswith("s3://")]
    if not uri.startswith(tuple(prefixes)):
        raise UriRefused(f"{uri!r} lies outside the data roots. {_roots()}")
    return f"/vsis3/{key}"


def _roots() -> str:
    roots = ", ".join(settings.THAWLOOP_DATA_ROOTS) or "none"
    return f"Data may be read below: {roots}. Copy it there, or add its folder to THAWLOOP_DATA_ROOTS."
