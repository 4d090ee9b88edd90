"""The real servers, with many requests that somebody began and does not finish."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from django.db import connection
from prometheus_client.parser import text_string_to_metric_families

from devstack.labelstudio import LabelStudioServer
from devstack.ports import free_port
from devstack.processes import is_alive
from devstack.stack import LocalStack

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON_PATH = os.pathsep.join([str(REPOSITORY / "platform"), str(REPOSITORY)])
MANY = 60
SECONDS = 300  # far more than anything here takes


@contextmanager
def running(
    argv: list[str], port: int, path: str, log: Path, **environment: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """A server process, from when it answers until the end of the block."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, *argv],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": PYTHON_PATH, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=SECONDS)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield server
    finally:
        server.kill()
        server.wait()


def web(port: int) -> list[str]:
    return ["-m", "gunicorn", "--config", "python:thawloop.serving.web", "--bind", f"127.0.0.1:{port}"]


def ml_backend(port: int) -> list[str]:
    return ["-m", "ml_backend.server", "--port", str(port)]


SERVERS = {"web": (web, "/healthz"), "ml-backend": (ml_backend, "/health")}


@pytest.mark.parametrize("name", SERVERS)
def test_half_sent_requests_do_not_keep_the_server_from_answering(
    name: str, tmp_path: Path, local_stack: LocalStack
) -> None:
    (argv, path), port = SERVERS[name], free_port()
    with running(argv(port), port, path, tmp_path / "log", **local_stack.environment):
        hold_and_ask(port, path)


@pytest.mark.labelstudio
def test_half_sent_requests_do_not_keep_label_studio_from_answering(labelstudio: LabelStudioServer) -> None:
    hold_and_ask(httpx.URL(labelstudio.url).port or 0, "/health")


def hold_and_ask(port: int, path: str) -> None:
    """Hold many requests half sent, and see that others are answered and the slow ones, too, when they go on."""
    post = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab".encode()
    get = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n".encode()
    kinds = {"silent": b"", "half a header": get, "half a body": post}
    with ExitStack() as open_sockets:
        held = {
            kind: [open_sockets.enter_context(begun(port, sent)) for _ in range(MANY)] for kind, sent in kinds.items()
        }
        with ThreadPoolExecutor(8) as people, httpx.Client(timeout=SECONDS) as client:
            answers = people.map(lambda _: client.get(f"http://127.0.0.1:{port}{path}"), range(24))
            assert [answer.status_code for answer in answers] == [200] * 24
        # They were not thrown out meanwhile, either: a slow client that goes on is served.
        assert finished(held["half a header"][-1], b"\r\n").startswith(b"HTTP/1.1 200")
        # Most take no POST there.
        assert finished(held["half a body"][-1], b"cd").startswith((b"HTTP/1.1 200", b"HTTP/1.1 40"))


@pytest.mark.django_db(transaction=True)
def test_requests_are_counted_over_all_web_processes(tmp_path: Path, local_stack: LocalStack) -> None:
    port = free_port()
    database = f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{connection.settings_dict['NAME']}"  # the test's
    environment = {"DATABASE_URL": database, "THAWLOOP_WEB_PROCESSES": "3", "THAWLOOP_METRICS_TOKEN": "secret"}
    with running(web(port), port, "/healthz", tmp_path / "log", **local_stack.environment | environment) as server:
        before = counted(port)
        for _ in range(60):  # each on a connection of its own, which any process may take
            assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=SECONDS).status_code == 200
        workers = children(server.pid)
        assert len(workers) == 3
        # Whichever process is asked, and after the end of one, too.
        assert {counted(port) - before for _ in range(12)} == {60}
        os.kill(workers[0], signal.SIGKILL)
        wait_for(lambda: len(children(server.pid)) == 3 and workers[0] not in children(server.pid))
        assert {counted(port) - before for _ in range(12)} == {60}


def counted(port: int) -> float:
    """How many requests for /healthz the server's processes say they answered."""
    headers = {"Authorization": "Bearer secret"}
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers, timeout=SECONDS)
    text = answer.raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "django_http_requests_total_by_view_transport_method_total"
        and sample.labels["view"] == "alive"
    )


@contextmanager
def begun(port: int, sent: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
        client.sendall(sent)
        yield client


def finished(client: socket.socket, rest: bytes) -> bytes:
    client.sendall(rest)
    return b"".join(iter(lambda: client.recv(65536), b""))


@contextmanager
def small_server(
    tmp_path: Path, settings: str = "", limits: str = ""
) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    """The worker around a small application, with one process; `limits` change the worker's module."""
    port = free_port()
    config = tmp_path / "config.py"
    config.write_text(
        "import thawloop.serving.buffered_worker as worker\n"
        f"{limits}\n"
        "class Small(worker.BufferedWorker):\n    max_body_bytes = 8_000_000\n"
        f"pythonpath = '{Path(__file__).parent}'\nwsgi_app = 'echo:application'\nworker_class = Small\nthreads = 2\n"
        f"bind = '127.0.0.1:{port}'\ncontrol_socket_disable = True\n{settings}\n"
    )
    argv = ["-m", "gunicorn", "--config", str(config)]
    with running(argv, port, "/", tmp_path / "log") as server:
        yield port, server


def test_large_bodies_arrive_whole_and_too_large_ones_are_refused(tmp_path: Path) -> None:
    body = os.urandom(8_000_000)
    with small_server(tmp_path) as (port, _server):
        url = f"http://127.0.0.1:{port}/"
        assert httpx.post(url, content=body, timeout=SECONDS).json()["digest"] == hashlib.sha256(body).hexdigest()
        pieces = httpx.post(
            url, content=iter([body[:3_000_000], body[3_000_000:7_000_000]]), timeout=SECONDS
        )  # chunked
        assert pieces.json()["digest"] == hashlib.sha256(body[:7_000_000]).hexdigest()
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000001\r\n\r\n"
        with begun(port, head) as client:
            assert finished(client, b"").startswith(b"HTTP/1.1 413")


def test_requests_that_take_too_long_to_arrive_are_closed(tmp_path: Path) -> None:
    limits = "worker.SILENCE_SECONDS = 1\nworker.PATIENCE_SECONDS = 1"
    with small_server(tmp_path, limits=limits) as (port, _server), ExitStack() as held:
        silent = held.enter_context(begun(port, b""))
        begin = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        dripping = held.enter_context(begun(port, begin))
        with pytest.raises(OSError):  # noqa: PT012 - it may fail on any byte
            for _ in range(10 * SECONDS):
                dripping.sendall(b"x")
                time.sleep(0.1)
        assert silent.recv(1) == b""


def test_when_connections_run_out_the_oldest_half_sent_ones_make_room(tmp_path: Path) -> None:
    with small_server(tmp_path, settings="worker_connections = 50") as (port, _server), ExitStack() as held:
        for _ in range(150):
            held.enter_context(begun(port, b"GET / HTTP/1.1\r\nHost: x\r\n"))
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/", timeout=SECONDS).status_code == 200


def test_a_stop_answers_what_was_received_and_waits_for_nothing_half_sent(tmp_path: Path) -> None:
    with (
        small_server(tmp_path, settings="graceful_timeout = 60") as (port, server),
        begun(port, b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as whole,
        begun(port, b"GET / HTTP/1.1\r\n"),
    ):
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        assert finished(whole, b"").startswith(b"HTTP/1.1 200")
        assert server.wait(50) == 0


def test_worker_processes_end_when_gunicorn_is_killed_and_are_replaced_when_killed_themselves(tmp_path: Path) -> None:
    with small_server(tmp_path) as (port, server):
        (worker,) = children(server.pid)
        os.kill(worker, signal.SIGKILL)
        assert httpx.Client(transport=httpx.HTTPTransport(retries=8)).get(f"http://127.0.0.1:{port}/").is_success
        wait_for(lambda: children(server.pid) not in ([], [worker]))
        (worker,) = children(server.pid)
        server.kill()
        server.wait()
        wait_for(lambda: not is_alive(worker))


def children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [pid for pid in map(int, text.split()) if is_alive(pid)]


def wait_for(condition: "object") -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("believed", "address", "scheme"), [("127.0.0.1", "192.0.2.7", "https"), ("10.9.8.7", "127.0.0.1", "http")]
)
def test_only_a_trusted_proxy_says_who_asked_and_how(tmp_path: Path, believed: str, address: str, scheme: str) -> None:
    headers = {"X-Forwarded-For": "203.0.113.5, 192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}
    with small_server(tmp_path, settings=f"forwarded_allow_ips = '{believed}'") as (port, _server):
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers=headers, timeout=SECONDS).json()
    assert (answer["REMOTE_ADDR"], answer["wsgi.url_scheme"]) == (address, scheme)
    assert answer["HTTP_X_FORWARDED_PROTO"] == ("https" if scheme == "https" else None)
