"""`manage.py serve` from outside, as a person uses it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
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
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if is_alive(pid)]


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
