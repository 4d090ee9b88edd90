"""`manage.py serve` from outside, as a person uses it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from devstack.ports import is_free
from devstack.processes import is_alive
from devstack.serve import Serve

REPOSITORY = Path(__file__).resolve().parents[2]
WITHOUT = ("DATABASE_URL", "REDIS_URL", "THAWLOOP_VAR", "DJANGO_SETTINGS_MODULE")


def manage(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    inherited = {name: value for name, value in os.environ.items() if name not in WITHOUT}
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=REPOSITORY,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_port_that_is_taken_is_refused_in_one_sentence_and_nothing_is_left_running(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        serve = manage("serve", "--root", str(tmp_path), THAWLOOP_PORT=str(port))
        _output, errors = serve.communicate(timeout=300)
    assert serve.returncode == 1
    assert errors.strip().endswith("stop that program or ask for another port.")
    assert f"Port {port}, wanted for web" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("*/instance.json"))


def test_a_port_that_is_no_number_is_refused(tmp_path: Path) -> None:
    serve = manage("serve", "--root", str(tmp_path), THAWLOOP_PORT="http")
    _output, errors = serve.communicate(timeout=300)
    assert serve.returncode == 1
    assert "THAWLOOP_PORT is 'http', which is not a port number" in errors


@pytest.mark.labelstudio
def test_serve_brings_everything_up_once_and_takes_everything_down(tmp_path: Path) -> None:
    serve = manage("serve", "--root", str(tmp_path), "--json")
    assert serve.stdout is not None
    lines = [serve.stdout.readline()]
    ports = json.loads((tmp_path / "ports.json").read_text())
    assert not is_free(ports["web"])  # before the servers run: nobody else can get their ports
    assert not is_free(ports["ml-backend"])
    while not any("Label Studio  http" in line for line in lines):
        line = serve.stdout.readline()
        assert line, (lines, serve.stderr and serve.stderr.read())
        lines.append(line)
    shown = "".join(lines)
    web = re.search(r"^ThawLoop +(http\S+) +(\S+) +(\S+)$", shown, re.MULTILINE)
    assert web is not None
    assert httpx.get(f"{web.group(1)}/healthz").text == "ok\n"
    assert log_in(web.group(1), web.group(2), web.group(3))

    environment = tmp_path / "environment"
    assert environment.stat().st_mode & 0o777 == 0o600
    assert not [path for path in [tmp_path / "logs", *(tmp_path / "logs").iterdir()] if path.stat().st_mode & 0o077]
    check = manage("migrate", "--check", THAWLOOP_ENV_FILE=str(environment))
    assert check.wait(300) == 0

    second = manage("serve", "--root", str(tmp_path))
    _output, errors = second.communicate(timeout=300)
    assert second.returncode == 1
    assert f"is running in {tmp_path} already (process {serve.pid})" in errors

    pids = session_of(tmp_path)
    assert len(pids) >= 7
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(120) == 0
    assert eventually(lambda: not any(map(is_alive, pids)))


def test_dev_restarts_what_runs_when_code_changes_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    dev = manage("dev", "--root", str(tmp_path))
    assert dev.stdout is not None
    shown = read_until(dev, r"^API .*\n")
    web = re.search(r"^ThawLoop +(http\S+)", shown, re.MULTILINE)
    assert web is not None
    assert "Label Studio  " not in shown
    with httpx.Client(base_url=web.group(1), timeout=60) as browser:
        assert "The current path, <code>no/such/page</code>" in browser.get("/no/such/page").text  # Django's, with code
        before = set(supervised(tmp_path))
        assert len(before) == 6
        (REPOSITORY / "platform/thawloop/urls.py").touch()
        assert eventually(lambda: len(set(supervised(tmp_path)) - before) == 6 and not any(map(is_alive, before)))
        assert browser.get("/healthz").text == "ok\n"  # the port listens on meanwhile: a browser waits, none is refused

    pids = session_of(tmp_path)
    dev.send_signal(signal.SIGINT)
    said, _errors = dev.communicate(timeout=120)
    assert dev.returncode == 0
    assert said == "  urls.py changed: restarting\nStopping ...\n"
    assert eventually(lambda: not any(map(is_alive, pids)))


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """What the process says, up to a line that matches."""
    assert process.stdout is not None
    shown = ""
    while not re.search(pattern, shown, re.MULTILINE):
        line = process.stdout.readline()
        assert line, (shown, process.stderr and process.stderr.read())
        shown += line
    return shown


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def supervised(root: Path) -> list[int]:
    """Leaders of the sessions in which processes of ours run for this folder (their parent is the supervisor)."""
    found = []
    for pid in session_of(root):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            leads = os.getsid(pid) == pid
        except OSError:
            continue
        if leads and re.search(rf"THAWLOOP_STACK=\d+:{re.escape(str(root))}\0", environment):
            found.append(pid)
    return found


def log_in(url: str, user: str, password: str) -> bool:
    with httpx.Client(base_url=url, timeout=60) as browser:
        browser.get("/admin/login/")
        form = {"username": user, "password": password, "next": "/admin/"}
        form["csrfmiddlewaretoken"] = browser.cookies["thawloop_csrf"]
        return browser.post("/admin/login/", data=form).status_code == 302


def session_of(root: Path) -> list[int]:
    """Every process that works for this folder, known by its command line or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(root).encode() in text and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def test_what_another_stack_wrote_down_is_not_taken_for_servers_of_the_users_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment").write_text("DATABASE_URL=postgis://one\nREDIS_URL=redis://one\n")
    monkeypatch.setenv("DATABASE_URL", "postgis://one")
    monkeypatch.setenv("REDIS_URL", "redis://another")
    stack = Serve(tmp_path).stack
    assert stack.redis_url == "redis://another"
    assert stack.database_url != "postgis://one"


def test_servers_given_from_outside_are_used_by_the_next_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment").write_text(
        "# Given from outside: DATABASE_URL\nDATABASE_URL=postgis://given\nREDIS_URL=redis://own\n"
    )
    monkeypatch.setenv("DATABASE_URL", "postgis://given")
    monkeypatch.setenv("REDIS_URL", "redis://own")
    stack = Serve(tmp_path).stack
    assert stack.database_url == "postgis://given"
    assert stack._redis_url is None
