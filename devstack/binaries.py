"""Finds the programs of PostgreSQL with PostGIS, Redis and Chromium on this machine."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from devstack.errors import ServiceMissing
from devstack.paths import system_dir

REMEDY = "run `make install`, or install {packages} with your package manager, or point {variable} at a server you have"


@dataclass(frozen=True)
class Program:
    """An executable and the extra environment it needs (libraries that were unpacked without root)."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PostgresBinaries:
    """The folder of `postgres`, `initdb`, `pg_dump`, ... of one PostgreSQL that has PostGIS."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def program(self, name: str) -> str:
        """The absolute path of one of its programs."""
        return str(self.folder / name)


def find_postgres() -> PostgresBinaries:
    """The newest PostgreSQL here that has PostGIS; `THAWLOOP_POSTGRES_BINDIR` decides when set.

    Raises:
        ServiceMissing: none found.
    """
    without_postgis = None
    for folder, environment in _postgres_folders():
        if not (folder / "postgres").exists() or not (folder / "initdb").exists():
            continue
        if _has_postgis(folder):
            return PostgresBinaries(folder, environment)
        without_postgis = folder
    found = f"PostgreSQL in {without_postgis} has no PostGIS" if without_postgis else "PostgreSQL was not found here"
    remedy = REMEDY.format(packages="PostgreSQL and PostGIS", variable="DATABASE_URL")
    raise ServiceMissing(f"{found}: {remedy}.")


def find_redis() -> Program:
    """The Redis (or Valkey) server program; `THAWLOOP_REDIS_SERVER` decides when set.

    Raises:
        ServiceMissing: none found.
    """
    candidates = [os.environ.get("THAWLOOP_REDIS_SERVER"), shutil.which("redis-server"), shutil.which("valkey-server")]
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return Program(Path(candidate))
    unpacked = unpacked_root() / "usr/bin/redis-server"
    if unpacked.exists():
        return Program(unpacked, unpacked_environment())
    raise ServiceMissing(f"Redis was not found here: {REMEDY.format(packages='Redis', variable='REDIS_URL')}.")


def find_chromium() -> Program | None:
    """The browser for the browser tests; `CHROMIUM_PATH` decides when set."""
    for name in (os.environ.get("CHROMIUM_PATH"), "chromium", "chromium-browser", "google-chrome"):
        if name and (path := shutil.which(name)):
            return Program(Path(path))
    unpacked = unpacked_root() / "usr/lib/chromium/chromium"
    return Program(unpacked, unpacked_environment()) if unpacked.exists() else None


def unpacked_root() -> Path:
    """The root of the Debian packages that were unpacked without root."""
    return system_dir() / "root"


def unpacked_environment() -> dict[str, str]:
    """What a program unpacked without root needs to find its libraries and fonts."""
    root = unpacked_root()
    triple = f"{os.uname().machine}-linux-gnu"
    usual = root / "usr/lib" / triple
    libraries = [usual, root / "lib" / triple, usual / "blas", usual / "lapack", usual / "pulseaudio"]
    return {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "FONTCONFIG_FILE": str(system_dir() / "fonts.conf"),
    }


def _postgres_folders() -> Iterator[tuple[Path, dict[str, str]]]:
    if chosen := os.environ.get("THAWLOOP_POSTGRES_BINDIR"):
        yield Path(chosen), {}
        return
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin"):
        for folder in sorted(Path("/usr").glob(pattern), key=_version, reverse=True):
            yield folder, {}
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent, {}
    for folder in sorted(unpacked_root().glob("usr/lib/postgresql/*/bin"), key=_version, reverse=True):
        share = unpacked_root() / "usr/share"
        yield folder, {**unpacked_environment(), "PROJ_DATA": str(share / "proj"), "GDAL_DATA": str(share / "gdal")}


def _version(folder: Path) -> float:
    digits = folder.parent.name.removeprefix("pgsql-")
    return float(digits) if digits.replace(".", "", 1).isdigit() else 0.0


def _has_postgis(folder: Path) -> bool:
    shares = [
        folder.parents[3] / "share/postgresql" / folder.parent.name,  # Debian: /usr/lib/postgresql/15/bin
        folder.parent / "share/postgresql",
        folder.parent / "share",
    ]
    return any((share / "extension/postgis.control").exists() for share in shares)
