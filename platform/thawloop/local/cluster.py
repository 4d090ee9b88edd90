"""Makes the data folder of a private PostgreSQL: PostGIS in template1, our roles, our database, our passwords."""

import fcntl
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from thawloop.local.binaries import PostgresBinaries
from thawloop.local.errors import ServiceFailed
from thawloop.local.paths import cache_dir
from thawloop.local.secrets import password
from thawloop.local.unprivileged import unprivileged_prefix

SUPERUSER = "postgres"
RECIPE = 1  # raise it when `_BASE` changes: cached clusters are named after it
_BASE = """
CREATE EXTENSION postgis;
GRANT SELECT, INSERT, UPDATE, DELETE ON spatial_ref_sys TO PUBLIC;
CREATE ROLE thawloop LOGIN CREATEDB;
CREATE ROLE labelstudio LOGIN;
CREATE DATABASE thawloop OWNER thawloop;
REVOKE CONNECT ON DATABASE thawloop FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO thawloop;
"""


def make_cluster(data: Path, binaries: PostgresBinaries, passwords: Mapping[str, str]) -> None:
    """Create the cluster `data` with these passwords per role; complete or not there at all.

    The empty cluster is made once and kept in the cache, because `initdb` and PostGIS take seconds and each test
    process wants a cluster of its own.

    Raises:
        ServiceFailed: a PostgreSQL program failed (its words are in the message).
    """
    base = _base_cluster(binaries)
    partial = data.with_name(data.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _copy(base, partial)
    _run_sql(
        binaries, partial, "".join(f"ALTER ROLE {role} PASSWORD '{word}';\n" for role, word in passwords.items())
    )
    partial.rename(data)


def _base_cluster(binaries: PostgresBinaries) -> Path:
    version = _run([binaries.program("postgres"), "--version"], binaries).split()[-1 if False else 2]
    base = cache_dir() / f"postgres-{version}-{RECIPE}"
    base.parent.mkdir(parents=True, exist_ok=True)
    with (base.parent / f"{base.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            partial = base.with_name(base.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _initdb(partial, binaries)
            _run_sql(binaries, partial, _BASE)
            partial.rename(base)
    return base
