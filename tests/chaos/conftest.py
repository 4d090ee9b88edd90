"""Real workers and reconcilers on the test database and a Redis of their own, to be killed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from thawloop.core.models import Job

HERE = Path(__file__).resolve().parent
PATIENCE_SECONDS = 90.0


class Crowd:
    """The processes of one test."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.trace = folder / "trace"
        self.gate = folder / "gate"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of our management commands."""
        with (self.folder / f"{len(self.processes)}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "manage.py"), *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker of the default queue."""
        return self.start("worker", "--queue", "default")

    def reconciler(self) -> subprocess.Popen[bytes]:
        """Start a reconciler process."""
        return self.start("reconciler")

    def reconcile(self) -> None:
        """Keep reconciling jobs from a thread of this process, which starts sooner than a process of its own."""
        thread = threading.Thread(target=self._reconcile)
        thread.start()
        self._threads.append(thread)

    def _reconcile(self) -> None:
        from django.db import connection

        from thawloop.core.jobs import reconcile_jobs

        while not self._over.wait(0.3):
            reconcile_jobs()
        connection.close()

    def enqueue(self, name: str, key: str, **args: str) -> "Job":
        """Ask for one of the `chaos_jobs`."""
        from thawloop.core.jobs import enqueue

        return enqueue(f"chaos_jobs.{name}", key=key, args={"trace": str(self.trace), **args})

    def events(self, kind: str) -> list[tuple[int, int]]:
        """(attempt, process id) of each event of that kind so far."""
        lines = self.trace.read_text().split("\n") if self.trace.exists() else []
        found = [line.split() for line in lines if line]
        return [(int(attempt), int(pid)) for event, attempt, pid in found if event == kind]

    def logs(self) -> str:
        """What the processes said."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something; the patience is for machines on which nothing works, not a measurement."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"It never happened that {what}.\n{self.logs()}")
            time.sleep(0.05)

    def end(self) -> None:
        """Stop reconciling, and kill every process of every session that was started here."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        from devstack.processes import kill_session, session_members

        for process in self.processes:
            while session_members(process.pid):  # work horses among them, which hold connections to the database
                kill_session(process.pid)
                time.sleep(0.02)
            process.wait()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """`redis_server()` starts the test's own Redis, and starts it again on the same port after it was stopped."""
    import redis

    from devstack.ports import free_port

    port, servers = free_port(), []

    def start() -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )
        servers.append(server)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                with redis.Redis(port=port) as client:
                    client.ping()
                return server
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
        raise RuntimeError("Redis did not start")

    start.url = f"redis://127.0.0.1:{port}/0"  # type: ignore[attr-defined]
    yield start
    for server in servers:
        server.kill()
        server.wait()


@pytest.fixture
def crowd(transactional_db: None, redis_server, settings, monkeypatch, tmp_path: Path) -> Iterator[Crowd]:
    """Processes with short leases on this test's database."""
    from django.db import connection

    redis_server()
    settings.REDIS_URL = redis_server.url
    monkeypatch.syspath_prepend(str(HERE))
    base, _, _name = os.environ["DATABASE_URL"].rpartition("/")
    times = {"LEASE": "2", "HEARTBEAT": "0.3", "DISPATCH_GRACE": "3"}
    for name, value in times.items():
        setattr(settings, f"THAWLOOP_JOB_{name}_SECONDS", float(value))
    crowd = Crowd(
        tmp_path,
        {
            **os.environ,
            "DATABASE_URL": f"{base}/{connection.settings_dict['NAME']}",
            "REDIS_URL": redis_server.url,
            "THAWLOOP_VAR": str(tmp_path / "var"),
            "THAWLOOP_RECONCILE_SECONDS": "0.3",
            **{f"THAWLOOP_JOB_{name}_SECONDS": value for name, value in times.items()},
        },
    )
    yield crowd
    crowd.end()
