"""Makes the data folder of a private PostgreSQL: PostGIS in template1, our roles, our database, our passwords."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from devstack.binaries import PostgresBinaries
from devstack.errors import ServiceFailed
from devstack.paths import cache_dir
from devstack.unprivileged import unprivileged_prefix

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
    _run_sql(binaries, partial, "".join(f"ALTER ROLE {role} PASSWORD '{word}';\n" for role, word in passwords.items()))
    partial.rename(data)


def _base_cluster(binaries: PostgresBinaries) -> Path:
    version = _run([binaries.program("postgres"), "--version"], binaries).split()[2]
    base = cache_dir() / f"postgres-{version}-{RECIPE}"
    base.parent.mkdir(parents=True, exist_ok=True)
    with base.with_name(f"{base.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not base.exists():
            partial = base.with_name(f"{base.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            _initdb(partial, binaries)
            _run_sql(binaries, partial, _BASE)
            partial.rename(base)
    return base


def _initdb(data: Path, binaries: PostgresBinaries) -> None:
    command = [
        binaries.program("initdb"),
        "--pgdata",
        str(data),
        "--username",
        SUPERUSER,
        "--auth",
        "reject",
        "--no-sync",
    ]
    command += ["--encoding", "UTF8", "--locale", "C.UTF-8"]
    _run([*unprivileged_prefix(data), *command], binaries)
    # Any account of the machine can connect to loopback, so nobody gets in without a password.
    (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")


def _run_sql(binaries: PostgresBinaries, data: Path, statements: str) -> None:
    """Run statements (one a line) in single-user mode: no port, no password, and no trace of them in any log."""
    command = [binaries.program("postgres"), "--single", "-j", "-D", str(data), "template1"]
    output = _run([*unprivileged_prefix(data), *command], binaries, statements.replace("\n", "\n\n"))
    # It ends with 0 whatever happened; `exit_on_error` is no way out, for PostGIS's script provokes and catches errors.
    if "ERROR:" in output:
        raise ServiceFailed(f"A private PostgreSQL could not be set up:\n{output.strip()}")


def _copy(base: Path, target: Path) -> None:
    shutil.copytree(base, target, symlinks=True)
    target.chmod(0o700)


def _run(command: list[str], binaries: PostgresBinaries, text: str | None = None) -> str:
    """Run a program of the cluster; its standard output and error together."""
    done = subprocess.run(
        command,
        input=text,
        env={**os.environ, **binaries.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode:
        raise ServiceFailed(f"A private PostgreSQL could not be made; {' '.join(command)} said:\n{done.stdout.strip()}")
    return done.stdout
