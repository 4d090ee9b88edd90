"""Keeps our own processes running: restarts what ends, with growing pauses, and stops everything together."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devstack.processes import Child, spawn, stop

LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class Process:
    """A program to keep running.

    Attributes:
        name: Unique among its fellows; also the name of its log.
        argv: Program (a path) and arguments.
        env: Added to the stack's environment.
        restart: Start it again when it ends by itself, whatever its exit code.
        cwd: Working directory (default `/`).
        prefix: Commands in front that change credentials.
        patience_seconds: How long it may take to end after SIGTERM before it is killed.
        sockets: File descriptors that it inherits, e.g. of a socket that listens already.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    restart: bool = True
    cwd: Path | None = None
    prefix: Sequence[str] = ()
    patience_seconds: float = 10.0
    sockets: Sequence[int] = ()


@dataclass
class _Watched:
    process: Process
    child: Child | None = None
    started: float = 0.0
    restarts: int = 0
    quick_failures: int = 0
    next_start: float = 0.0


@dataclass(frozen=True)
class Status:
    """How one supervised process is doing; `pid` is None while it is down."""

    name: str
    pid: int | None
    restarts: int
    last_exit: int | None
    log: Path


class Supervisor:
    """Watches processes from a background thread; `stop()` ends them.

    Args:
        logs: Folder of their logs.
        environment: Added to the environment of each.
        also: Called over and over by the same thread, for what has to be watched in other ways.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], also: Callable[[], None] | None = None) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._also = also
        self._watched: list[_Watched] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, processes: Sequence[Process]) -> None:
        """Start these processes and keep them running."""
        with self._lock:
            names = {watched.process.name for watched in self._watched}
            for process in processes:
                if process.name in names:
                    raise ValueError(f"A process named {process.name!r} is supervised already.")
                names.add(process.name)
                watched = _Watched(process)
                self._start(watched)
                self._watched.append(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
                self._thread.start()

    def status(self) -> list[Status]:
        """How each process is doing, in the order they were added."""
        with self._lock:
            return [self._status(watched) for watched in self._watched]

    def restart(self) -> None:
        """End every process as `stop` does and start it again at once, e.g. because its program was changed."""
        with self._lock:
            self._end(self._watched)
            for watched in self._watched:
                watched.quick_failures = 0
                self._start(watched)

    def stop(self) -> None:
        """End every process: all are asked at once, then each gets its patience, then it is killed."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._end(self._watched)
            self._watched.clear()
        self._stopping.clear()

    def _watch(self) -> None:
        while not self._stopping.wait(0.2):
            if self._also is not None:
                self._also()
            with self._lock:
                for watched in self._watched:
                    self._tend(watched)

    def _tend(self, watched: _Watched) -> None:
        if watched.child is None or watched.child.poll() is None or not watched.process.restart:
            return
        now = time.monotonic()
        if not watched.next_start:
            lived = now - watched.started
            watched.quick_failures = 0 if lived > HEALTHY_AFTER_SECONDS else watched.quick_failures + 1
            pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2**watched.quick_failures)
            watched.next_start = now + pause
            self._note(watched, f"ended with exit code {watched.child.returncode}; starting again in {pause:.0f} s")
        elif now >= watched.next_start:
            watched.restarts += 1
            self._start(watched)

    def _start(self, watched: _Watched) -> None:
        process = watched.process
        if watched.child is not None:
            stop(watched.child)  # ended already: this kills what it may have left behind
        watched.child = spawn(
            process.argv,
            log=self._log(process),
            environment={**self._environment, **process.env},
            prefix=process.prefix,
            cwd=process.cwd,
            sockets=process.sockets,
        )
        watched.started, watched.next_start = time.monotonic(), 0.0

    def _end(self, all_watched: Sequence[_Watched]) -> None:
        for watched in all_watched:
            if watched.child is not None and watched.child.poll() is None:
                watched.child.terminate()
        for watched in all_watched:
            self._finish(watched)

    def _finish(self, watched: _Watched) -> None:
        if watched.child is None:
            return
        deadline = time.monotonic() + watched.process.patience_seconds
        while watched.child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if watched.child.poll() is None:
            self._note(watched, f"did not end within {watched.process.patience_seconds:.0f} s and is killed")
            watched.child.kill()
        stop(watched.child)

    def _status(self, watched: _Watched) -> Status:
        child = watched.child
        code = child.poll() if child else None
        pid = child.pid if child and code is None else None
        return Status(watched.process.name, pid, watched.restarts, code, self._log(watched.process))

    def _note(self, watched: _Watched, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        with self._log(watched.process).open("a") as log:
            log.write(f"--- {stamp} supervisor: {watched.process.name} {text} ---\n")

    def _log(self, process: Process) -> Path:
        return self._logs / f"{process.name}.log"
