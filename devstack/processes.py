"""Child processes that never outlive us: spawning, stopping, and who else is running."""

import functools
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

LOG_LIMIT_BYTES = 20_000_000
Child: TypeAlias = subprocess.Popen[bytes]


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    inherit: bool = True,
    prefix: Sequence[str] = (),
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    sockets: Sequence[int] = (),
) -> Child:
    """Start a child in its own session that gets `death_signal` when this process ends, however it ends.

    Args:
        argv: The program (a path) and its arguments.
        log: File that stdout and stderr are appended to; the previous one is kept as `.1` when it has grown large.
        environment: Added to our own environment.
        inherit: False: the child gets `environment` alone.
        prefix: Commands that change credentials. They come first: the kernel forgets the death signal when
            credentials change.
        cwd: Working directory; default is `/`, so that a removed folder harms nobody.
        death_signal: What the child gets when we are gone.
        sockets: File descriptors that the child inherits, under the same numbers.
    """
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    tied = ["setpriv", "--pdeathsig", death_signal.name.removeprefix("SIG"), "--"] if shutil.which("setpriv") else []
    command = [*prefix, *tied, *argv]

    def start() -> Child:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd or "/",
                env={**(os.environ if inherit else {}), **(environment or {})},
                start_new_session=True,
                pass_fds=sockets,
            )

    return _spawner().run(start)


def stop(process: Child, sign: signal.Signals = signal.SIGTERM, patience_seconds: float = 15.0) -> None:
    """Ask a child to end, wait, then kill it and everything that is left of its session."""
    if process.poll() is None:
        process.send_signal(sign)
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    kill_session(process.pid)


def kill_session(leader: int) -> None:
    """Kill what is left of a session whose leader we started, e.g. the work horse of a killed RQ worker."""
    for pid in session_members(leader):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def session_members(leader: int) -> list[int]:
    """Process ids of the session that `leader` leads (Linux; elsewhere none are found)."""
    return [pid for pid, fields in _stat_fields() if fields[3] == str(leader) and fields[0] != "Z"]


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def working_in(folder: Path) -> list[int]:
    """Process ids whose working directory is this folder."""
    found = []
    for pid, _fields in _stat_fields():
        try:
            if Path(f"/proc/{pid}/cwd").readlink() == folder:
                found.append(pid)
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return found


def end_leftovers(variable: str, owned: str) -> list[int]:
    """Kill processes of this user that a killed supervisor left behind; returns their ids.

    They are known by `variable=<supervisor's process id>:<owned>` in their environment, with that supervisor gone.
    """
    prefix, suffix = f"{variable}=".encode(), f":{owned}".encode()
    ended = []
    for pid, _fields in _stat_fields():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            mark = next((entry for entry in environment if entry.startswith(prefix) and entry.endswith(suffix)), None)
            if mark and not is_alive(int(mark.removeprefix(prefix).removesuffix(suffix))):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return ended


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log, for an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8000))
        return "\n".join(file.read().decode(errors="replace").strip().splitlines()[-lines:])


def wait_until(
    ready: Callable[[], bool],
    *,
    seconds: float,
    alive: Callable[[], bool],
    waiting: Callable[[float], None] | None = None,
) -> bool:
    """Ask `ready` until it is, the time is over or `alive` says no; `waiting(elapsed)` is called every 5 seconds."""
    started = time.monotonic()
    reported, pause = 0, 0.02
    while (elapsed := time.monotonic() - started) < seconds:
        if ready():
            return True
        if not alive():
            return False
        if waiting is not None and elapsed // 5 > reported:
            reported = int(elapsed // 5)
            waiting(elapsed)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
    return False


def _stat_fields() -> list[tuple[int, list[str]]]:
    """For each process: its id and the fields of /proc/PID/stat from `state` on (state, ppid, pgrp, session, ...)."""
    rows = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rows.append((int(stat.parent.name), stat.read_text().rpartition(")")[2].split()))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return rows


class _Spawner:
    """Starts every child of this process in one thread.

    The death signal is tied to the *thread* that started the child, so that thread must live as long as the process.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="spawner", daemon=True).start()

    def run(self, start: Callable[[], Child]) -> Child:
        result: Future[Child] = Future()
        self._orders.put((start, result))
        return result.result()

    def _work(self) -> None:
        while True:
            start, result = self._orders.get()
            try:
                result.set_result(start())
            except OSError as error:
                result.set_exception(error)


@functools.cache
def _spawner() -> _Spawner:
    return _Spawner()


# A forked child has no such thread: it makes its own.
os.register_at_fork(after_in_child=_spawner.cache_clear)
