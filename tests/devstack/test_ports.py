import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.errors import PortTaken
from devstack.ports import PortBook, free_port, is_free, require_free
from devstack.processes import spawn


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_port_is_free_and_a_listened_on_port_is_not(taken_port: int) -> None:
    assert is_free(free_port())
    assert not is_free(taken_port)


def test_a_wanted_port_that_is_taken_is_refused_with_its_number(taken_port: int, tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=rf"Port {taken_port}, wanted for web, is in use .*ask for another port"):
        PortBook(tmp_path / "ports.json").choose("web", wanted=taken_port)


@pytest.mark.parametrize("number", [0, -1, 65536])
def test_what_is_no_port_number_is_refused(number: int) -> None:
    with pytest.raises(PortTaken, match="not a port number"):
        require_free(number, "web", "choose another")


def test_a_port_is_remembered_for_the_next_start(tmp_path: Path) -> None:
    port = PortBook(tmp_path / "ports.json").choose("web")
    assert PortBook(tmp_path / "ports.json").choose("web", first_choice=free_port()) == port


def test_a_remembered_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path, taken_port: int) -> None:
    book = PortBook(tmp_path / "ports.json")
    assert book.choose("web", first_choice=taken_port) != taken_port
    first_choice = free_port()
    assert book.choose("labelstudio", first_choice=first_choice) == first_choice


def test_a_port_that_one_installation_listens_on_is_not_chosen_by_another_before_its_server_runs(
    tmp_path: Path,
) -> None:
    with PortBook(tmp_path / "one.json").listen("web", first_choice=free_port()) as first:
        port = first.getsockname()[1]
        with PortBook(tmp_path / "two.json").listen("web", first_choice=port) as second:
            assert second.getsockname()[1] != port
        with pytest.raises(PortTaken, match=f"Port {port}"):
            PortBook(tmp_path / "three.json").listen("web", wanted=port)
    with PortBook(tmp_path / "one.json").listen("web", first_choice=free_port()) as again:
        assert again.getsockname()[1] == port


def test_a_port_lost_between_choosing_and_listening_is_replaced(
    tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True])
    monkeypatch.setattr("devstack.ports.is_free", lambda port: next(looks, False))
    with PortBook(tmp_path / "ports.json").listen("web", first_choice=taken_port) as listener:
        assert listener.getsockname()[1] != taken_port


def test_connections_made_before_the_server_runs_are_answered_by_it(tmp_path: Path) -> None:
    server = (
        "import socket, sys; listener = socket.socket(fileno=int(sys.argv[1])); "
        "connection = listener.accept()[0]; connection.sendall(b'served'); connection.close()"
    )
    with PortBook(tmp_path / "ports.json").listen("web") as listener:
        with socket.create_connection(listener.getsockname(), timeout=60) as early:
            number = listener.fileno()
            child = spawn([sys.executable, "-c", server, str(number)], log=tmp_path / "log", sockets=[number])
            assert early.recv(16) == b"served"
        assert child.wait(60) == 0
