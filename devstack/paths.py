"""Where servers and installed programs are kept: below `var/`, which git ignores and `make clean` removes."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Programs of ours that Label Studio's interpreter runs; never imported by us.
INSIDE = REPOSITORY / "platform" / "thawloop" / "serving" / "inside_labelstudio"


def var_dir() -> Path:
    """The folder for everything that is made at run time (`THAWLOOP_VAR`, default `var/` in the checkout)."""
    return Path(os.environ.get("THAWLOOP_VAR") or REPOSITORY / "var").absolute()


def cache_dir() -> Path:
    """What can be made again but takes long: an empty cluster with PostGIS, Label Studio's migrated database."""
    return Path(os.environ.get("THAWLOOP_CACHE") or REPOSITORY / "var" / "cache").absolute()


def system_dir() -> Path:
    """Debian packages unpacked without root (PostgreSQL, PostGIS, Redis, Chromium)."""
    return Path(os.environ.get("THAWLOOP_SYSTEM") or REPOSITORY / "var" / "system").absolute()


def labelstudio_python() -> Path:
    """The interpreter of Label Studio's own environment: it pins another Django than ours."""
    return Path(os.environ.get("THAWLOOP_LABELSTUDIO_PYTHON") or REPOSITORY / ".venv-labelstudio" / "bin" / "python")
