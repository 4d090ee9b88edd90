"""The reconcilers: every room registers what it checks and completes, and how often.

Webhooks and queues are hints that make things fast. What they miss, a reconciler finds. Each runs in a thread of its
own, so that a slow one (a Label Studio that does not answer) does not delay the others; and each holds a database lock
while it runs, so that any number of reconciler processes share the work.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from thawloop.core.context import acting
from thawloop.core.errors import Refused
from thawloop.core.locks import exclusive

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 60.0
_LOCK_SPACE = 0x7468  # keeps our advisory locks apart from anybody else's


@dataclass(frozen=True)
class Reconciler:
    """Something to be checked and completed regularly.

    Attributes:
        name: E.g. `core.jobs`.
        run: Checks and completes; returns what it did, one sentence each.
        every_seconds: Pause between two runs.
        by_campaign: Whether `run` also takes a campaign, and then looks at that one only.
    """

    name: str
    run: Callable[..., list[str]]
    every_seconds: float
    by_campaign: bool = False


_registered: dict[str, Reconciler] = {}


def register_reconciler(
    name: str, run: Callable[..., list[str]], every_seconds: float, *, by_campaign: bool = False
) -> None:
    """Have `run()` called every so many seconds by `manage.py reconciler`; called from an app's `ready()`.

    The arguments are the attributes of `Reconciler`.
    """
    _registered[name] = Reconciler(name, run, every_seconds, by_campaign)


def registered_reconcilers() -> list[Reconciler]:
    """All of them, by name."""
    return [_registered[name] for name in sorted(_registered)]


def run_once(reconciler: Reconciler, campaign: Any = None) -> list[str]:
    """Run one reconciler now, unless another process is doing so; returns what was done.

    Args:
        reconciler: Which one.
        campaign: The only campaign to look at, for a reconciler `by_campaign`; None: all.
    """
    with exclusive(f"reconciler:{reconciler.name}", wait=False) as ours, acting(name="reconciler"):
        if not ours:
            return []
        done = reconciler.run(campaign) if reconciler.by_campaign else reconciler.run()
        for sentence in done:
            log.info(sentence, reconciler=reconciler.name)
        return done


def run_forever(stop: threading.Event) -> None:
    """Run all registered reconcilers, each in its own thread, until `stop` is set."""
    threads = [
        threading.Thread(target=_repeat, args=(reconciler, stop), name=reconciler.name)
        for reconciler in registered_reconcilers()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def is_running() -> bool:
    """Whether any reconciler process is at work, on whatever machine: each holds a lock in the database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = 0 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            [_LOCK_SPACE],
        )
        return bool(cursor.fetchone()[0])


def show_presence(stop: threading.Event) -> None:
    """Hold the lock that `is_running` looks for until `stop` is set, taking it again whenever it was lost."""
    while not stop.is_set():
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock_shared(%s, 0)", [_LOCK_SPACE])
                while not stop.wait(5):
                    cursor.execute("SELECT 1")
        except (DatabaseError, InterfaceError) as error:
            log.warning("the database does not answer; trying again", error=str(error).strip())
            stop.wait(2)
        finally:
            connection.close()


def _repeat(reconciler: Reconciler, stop: threading.Event) -> None:
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        close_old_connections()
        try:
            run_once(reconciler)
            failures = 0
        except Refused as error:
            failures += 1
            log.warning("reconciler refused", reconciler=reconciler.name, why=str(error))
        except Exception:
            failures += 1
            log.exception("reconciler failed", reconciler=reconciler.name)
            connection.close()
        longest = max(LONGEST_PAUSE_SECONDS, reconciler.every_seconds)
        pause = min(reconciler.every_seconds * 2 ** min(failures, 10), longest)
        stop.wait(max(0.1, pause - (time.monotonic() - began)))
    connection.close()
