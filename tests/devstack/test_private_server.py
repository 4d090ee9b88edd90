"""What every private server does: find another port when it lost the race for one, and come back when it ended."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.errors import ServiceFailed
from devstack.ports import PortBook, listen
from devstack.redis import RedisServer
from devstack.secrets import SecretStore


class OvertakenPortBook(PortBook):
    """Another program listens on the first port that is chosen, before the server can."""

    overtaker: socket.socket | None = None

    def choose(self, service: str, *, wanted: int | None = None, first_choice: int | None = None) -> int:
        port = super().choose(service, wanted=wanted, first_choice=first_choice)
        if self.overtaker is None:
            self.overtaker = listen(port)
        return port


def make_server(folder: Path, ports: PortBook) -> RedisServer:
    return RedisServer(folder / "redis", False, SecretStore(folder / "secrets"), ports, lambda line: None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = make_server(tmp_path, PortBook(tmp_path / "ports.json"))
    server.start()
    yield server
    server.stop()


def kill(server: RedisServer) -> None:
    assert server.pid is not None
    assert server._child is not None
    os.kill(server.pid, signal.SIGKILL)
    server._child.wait()


def test_a_server_that_lost_the_race_for_its_port_takes_another(tmp_path: Path) -> None:
    ports = OvertakenPortBook(tmp_path / "ports.json")
    server = make_server(tmp_path, ports)
    try:
        server.start()
        assert ports.overtaker is not None
        assert server.port != ports.overtaker.getsockname()[1]
        assert ports.choose("other", first_choice=server.port) != server.port  # it listens
    finally:
        server.stop()
        if ports.overtaker is not None:
            ports.overtaker.close()


def test_a_server_that_runs_is_left_alone_and_one_that_was_stopped_stays_so(server: RedisServer) -> None:
    assert not server.restart_if_ended()
    server.start()
    assert not server.restart_if_ended()
    server.stop()
    assert not server.restart_if_ended()
    assert server.pid is None


def test_a_restart_that_failed_is_tried_again(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.port
    kill(server)
    with monkeypatch.context() as patched:
        patched.setenv("THAWLOOP_REDIS_SERVER", "/bin/false")
        with pytest.raises(ServiceFailed, match="The private Redis did not come up"):
            server.restart_if_ended()
    assert server.restart_if_ended()
    assert server.port == port
    assert not server.restart_if_ended()


def test_a_server_of_another_process_is_found_and_neither_restarted_nor_stopped(
    server: RedisServer, tmp_path: Path
) -> None:
    second = make_server(tmp_path, PortBook(tmp_path / "ports.json"))
    second.start()
    assert (second.port, second.pid) == (server.port, None)
    second.stop()
    assert not server.restart_if_ended()
    second.start()
    kill(server)
    assert not second.restart_if_ended()
    assert server.restart_if_ended()
