"""`python -m devstack.install`: makes sure that PostGIS, Redis and Chromium are on this machine.

For each the order is: a server named in the environment, programs that are here, apt as root, apt by sudo, Debian's
packages unpacked into `var/system` without root, a sentence saying what to do.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

from devstack import binaries, debian
from devstack.errors import LocalServiceError, ServiceMissing

POSTGIS = "postgresql-[0-9]+-postgis-3"
REDIS = "redis-server"
CHROMIUM = ["chromium", "fonts-dejavu-core"]


def main(arguments: list[str] | None = None) -> int:
    """Install what is missing; 0 when the services are there, 1 with a sentence when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--without-browser", action="store_true", help="no Chromium, hence no browser tests")
    options = parser.parse_args(arguments)
    try:
        _install_services()
    except LocalServiceError as error:
        print(f"make install: {error}", file=sys.stderr)
        return 1
    if not options.without_browser:
        _install_browser()
    return 0


def _install_services() -> None:
    """Install PostGIS and Redis, unless they are here or servers are named in the environment."""
    services = (("DATABASE_URL", binaries.find_postgres, POSTGIS), ("REDIS_URL", binaries.find_redis, REDIS))
    wanted = [(find, package) for variable, find, package in services if not os.environ.get(variable)]
    missing = [package for find, package in wanted if _is_missing(find)]
    if missing:
        _install("PostgreSQL with PostGIS, Redis", missing)
    for find, _package in wanted:
        find()


def _install_browser() -> None:
    """Only tests need it, so its absence is reported and does not stop anything."""
    if binaries.find_chromium() is not None:
        return
    try:
        _install("Chromium, for the browser tests", CHROMIUM)
    except LocalServiceError as error:
        print(f"No Chromium, so the browser tests will be skipped: {error}", file=sys.stderr)


def _install(what: str, packages: list[str]) -> None:
    if not debian.has_apt():
        raise ServiceMissing(
            f"{what}: not found, and this system has no apt. Install them with your package manager, or point "
            "DATABASE_URL and REDIS_URL at servers you have, then run `make install` again."
        )
    how = {"root": "apt", "sudo": "apt through sudo", "unpack": "unpacked into var/system, without root"}[debian.way()]
    started = time.monotonic()
    print(f"         {what} ({how}) ...", flush=True)
    debian.install(packages)
    print(f"         {what}: done in {time.monotonic() - started:.0f} s", flush=True)


def _is_missing(find: Callable[[], object]) -> bool:
    try:
        find()
    except ServiceMissing:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
