"""Health of what we depend on, and job counts."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Count, F, Min, Q

from thawloop.core import reconciler
from thawloop.core.errors import Refused, Unavailable
from thawloop.core.jobs import queue
from thawloop.core.jobs.worker import live_workers
from thawloop.core.models import QUEUES, Job
from thawloop.core.storage.artifacts import local_root, remote_root

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Component:
    """How something that we depend on is doing. Without a required one, the platform does not work."""

    ok: bool
    detail: str
    seconds: float
    required: bool


@dataclass(frozen=True)
class _Check:
    run: Callable[[], str]
    required: bool


_checks: dict[str, _Check] = {}


def register_health_check(name: str, check: Callable[[], str], *, required: bool = True) -> None:
    """Have `check()` called for the health page. It returns a detail in words, and raises when something is wrong."""
    _checks[name] = _Check(check, required)


def health() -> dict[str, dict[str, Any]]:
    """Ask every component at once; none is waited for longer than TIMEOUT_SECONDS.

    Returns:
        For each component `ok`, `detail`, `seconds` and `required`.
    """
    threads = {name: _CheckThread(check) for name, check in _checks.items()}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return {name: asdict(thread.answer()) for name, thread in sorted(threads.items())}


class _CheckThread(threading.Thread):
    def __init__(self, check: _Check) -> None:
        super().__init__(daemon=True)
        self._check = check
        self._began = time.monotonic()
        self._answer: Component | None = None

    def run(self) -> None:
        try:
            ok, detail = True, self._check.run()
        except Refused as error:
            ok, detail = False, str(error)
        except Exception as error:
            log.warning("health check failed", exc_info=True)
            ok, detail = False, " ".join(f"{type(error).__name__}: {error}".split())[:300]
        finally:
            connection.close()
        self._answer = Component(ok, detail, round(time.monotonic() - self._began, 4), self._check.required)

    def answer(self) -> Component:
        return self._answer or Component(
            False, f"no answer within {TIMEOUT_SECONDS:.0f} s", TIMEOUT_SECONDS, self._check.required
        )


def check_postgres() -> str:
    """PostgreSQL answers, with PostGIS in it."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        server = cursor.fetchone()[0].split()[0]
        cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'postgis'")
        if (row := cursor.fetchone()) is None:
            raise Unavailable("the PostGIS extension is missing: run `CREATE EXTENSION postgis` in the database")
    return f"PostgreSQL {server}, PostGIS {row[0]}"


def check_redis() -> str:
    """Redis answers."""
    return f"Redis {queue.version()}"


def check_storage() -> str:
    """Artifacts can be written."""
    root = local_root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=root, prefix=".health-") as file:
        file.write(b"ok")
        file.flush()
    free = os.statvfs(root)
    return f"{remote_root() or root}: {free.f_bavail * free.f_frsize / 1e9:.1f} GB free"


def check_workers() -> str:
    """Every queue has a worker."""
    counts = {name: live_workers(name) for name in QUEUES}
    if idle := [name for name, count in counts.items() if not count]:
        raise Unavailable(f"no worker serves {', '.join(idle)}: start `manage.py worker --queue {idle[0]}`")
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def check_reconciler() -> str:
    """A reconciler process is at work."""
    if not reconciler.is_running():
        raise Unavailable("no reconciler runs: start `manage.py reconciler`")
    return "at work"


def job_counts() -> list[tuple[str, str, int]]:
    """How many jobs there are: (queue, state, count), zeros included."""
    found = {
        (row["queue"], row["state"]): row["count"]
        for row in Job.objects.order_by().values("queue", "state").annotate(count=Count("pk"))
    }
    return [(queue, state, found.get((queue, state), 0)) for queue in QUEUES for state in Job.State.values]


def oldest_queued_seconds() -> dict[str, float]:
    """For each queue, how long the job that has waited longest has been waiting (0 when none waits)."""
    oldest = dict(
        Job.objects.filter(state=Job.State.QUEUED).order_by().values_list("queue").annotate(since=Min("created"))
    )
    return {queue: time.time() - oldest[queue].timestamp() if queue in oldest else 0.0 for queue in QUEUES}


def people_to_ask(most: int = 3) -> list[str]:
    """Names of those who can give an account its role: admins, who may change users."""
    admins = get_user_model().objects.filter(Q(is_superuser=True) | Q(groups__permissions__codename="change_user"))
    admins = admins.filter(is_active=True).distinct().order_by(F("last_login").desc(nulls_last=True))
    return [user.get_full_name() or user.get_username() for user in admins[:most]]
