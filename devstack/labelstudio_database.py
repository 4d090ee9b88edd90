"""Label Studio's database: migrated once per version (40 s), then copied from the cache (seconds)."""

import fcntl
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from devstack.binaries import PostgresBinaries, find_postgres
from devstack.errors import ServiceFailed
from devstack.paths import REPOSITORY, cache_dir
from devstack.postgres import PostgresServer

NAME = "labelstudio"
_FILLING = "labelstudio_filling"
# Run by Label Studio's interpreter, never imported by us.
INSIDE = REPOSITORY / "platform" / "thawloop" / "serving" / "inside_labelstudio"


def prepare_database(
    python: list[str],
    postgres: PostgresServer | None,
    settings: Mapping[str, str],
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Bring Label Studio's database to the installed version, unless it is there already.

    Args:
        python: The interpreter of Label Studio's environment, with what takes its rights away in front.
        postgres: The private server; None means SQLite in `folder`.
        settings: Label Studio's environment variables.
        folder: Where the version of the database is noted.
        report: Called with a line of progress.

    Raises:
        ServiceFailed: a migration or the copy failed.
    """
    version = _run([*python, "-c", "import importlib.metadata as m; print(m.version('label-studio'))"], {}).strip()
    note = folder / "database-version"
    exists = note.exists() if postgres is None else postgres.has_database(NAME)
    if exists and note.exists() and note.read_text() == version:
        return
    started = time.monotonic()
    report("Preparing Label Studio's database (about a minute the first time)")
    if postgres is None or exists:
        _migrate(python, settings)
    else:
        _create(python, postgres, settings, version)
    note.write_text(version)
    report(f"Label Studio's database is ready ({time.monotonic() - started:.0f} s)")


def _create(python: list[str], postgres: PostgresServer, settings: Mapping[str, str], version: str) -> None:
    binaries = find_postgres()
    dump = cache_dir() / f"labelstudio-{version}-{binaries.folder.parent.name}.dump"
    postgres.drop_database(_FILLING)
    postgres.create_database(_FILLING, NAME, template="template0")
    url = postgres.url(_FILLING, NAME, "postgresql")
    dump.parent.mkdir(parents=True, exist_ok=True)
    with dump.with_name(f"{dump.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not dump.exists():
            _migrate(python, {**settings, "POSTGRE_NAME": _FILLING})
            _dump(binaries, url, dump)
            postgres.rename_database(_FILLING, NAME)
            return
    command = [binaries.program("pg_restore"), "--no-owner", "--single-transaction", "--exit-on-error"]
    _run([*command, "--dbname", url, str(dump)], binaries.environment)
    postgres.rename_database(_FILLING, NAME)


def _dump(binaries: PostgresBinaries, url: str, dump: Path) -> None:
    partial = dump.with_name(f"{dump.name}.partial")
    command = [binaries.program("pg_dump"), "--format=custom", "--no-owner", "--no-privileges", "--no-comments"]
    _run([*command, f"--file={partial}", url], binaries.environment)
    partial.rename(dump)


def _migrate(python: list[str], settings: Mapping[str, str]) -> None:
    _run([*python, str(INSIDE / "migrate.py")], settings)


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        env=dict(environment),
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode:
        words = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise ServiceFailed(f"Label Studio's database could not be prepared:\n{words}")
    return done.stdout
