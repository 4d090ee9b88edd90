import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from thawloop.local.errors import PortTaken
from thawloop.local.ports import PortBook, free_port, is_free, require_free


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
