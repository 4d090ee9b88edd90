import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack.processes import end_leftovers, is_alive
from devstack.supervisor import Process, Supervisor

FOREVER = [sys.executable, "-c", "import time\nwhile True: time.sleep(1)"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path, {"GREETING": "hello"})
    yield supervisor
    supervisor.stop()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_killed_process_is_started_again(supervisor: Supervisor) -> None:
    supervisor.add([Process("worker", FOREVER)])
    first = supervisor.status()[0].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: supervisor.status()[0].restarts == 1 and supervisor.status()[0].pid is not None)
    assert supervisor.status()[0].pid != first


def test_a_process_that_keeps_failing_is_started_less_and_less_often(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add([Process("broken", [sys.executable, "-c", "raise SystemExit('no configuration')"])])
    assert eventually(lambda: supervisor.status()[0].restarts == 2)
    log = (tmp_path / "broken.log").read_text()
    assert log.count("no configuration") >= 2
    assert "ended with exit code 1; starting again in 1 s" in log
    assert "starting again in 2 s" in log


def test_a_process_that_may_end_is_left_alone(supervisor: Supervisor) -> None:
    supervisor.add([Process("once", [sys.executable, "-c", ""], restart=False)])
    supervisor.add([Process("other", [sys.executable, "-c", ""])])
    # By the time the other one is back, this one would be, too.
    assert eventually(lambda: supervisor.status()[1].restarts >= 2)
    assert (supervisor.status()[0].last_exit, supervisor.status()[0].restarts) == (0, 0)


def test_processes_get_the_stacks_environment_and_their_own(supervisor: Supervisor, tmp_path: Path) -> None:
    code = "import os; print(os.environ['GREETING'], os.environ['NAME'], flush=True)"
    supervisor.add([Process("env", [sys.executable, "-c", code], {"NAME": "world"}, restart=False)])
    assert eventually(lambda: (tmp_path / "env.log").exists() and "hello world" in (tmp_path / "env.log").read_text())


def test_stopping_ends_processes_that_do_not_listen_and_their_children(supervisor: Supervisor, tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import os, time; os.setpgrp(); time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    supervisor.add([Process("deaf", [sys.executable, "-c", code], patience_seconds=0.5)])
    log = tmp_path / "deaf.log"
    assert eventually(lambda: log.exists() and log.read_text().strip().isdigit())
    pids = [supervisor.status()[0].pid, int(log.read_text())]
    supervisor.stop()
    assert eventually(lambda: not any(is_alive(pid) for pid in pids if pid))
    assert "did not end within" in log.read_text()


def test_two_processes_of_one_name_are_refused(supervisor: Supervisor) -> None:
    supervisor.add([Process("web", FOREVER)])
    with pytest.raises(ValueError, match="'web'"):
        supervisor.add([Process("web", FOREVER)])


def test_what_a_killed_supervisor_left_behind_is_found_and_ended(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine = {**os.environ, "THAWLOOP_TEST_MARK": f"{os.getpid()}:{tmp_path}"}
    left = {**os.environ, "THAWLOOP_TEST_MARK": f"{dead.pid}:{tmp_path}"}
    running = subprocess.Popen(["sleep", "600"], env=mine)
    orphan = subprocess.Popen(["sleep", "600"], env=left)
    try:
        assert end_leftovers("THAWLOOP_TEST_MARK", str(tmp_path)) == [orphan.pid]
        assert orphan.wait() == -signal.SIGKILL
        assert running.poll() is None
    finally:
        for process in (running, orphan):
            process.kill()
            process.wait()
