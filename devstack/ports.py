"""Loopback ports: free ones, remembered ones, and a clear word when a wanted one is taken."""

import json
import os
import socket
from pathlib import Path

from devstack.errors import PortTaken

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # What servers do themselves: connections in TIME_WAIT do not block a restart, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def listen(port: int) -> socket.socket:
    """A socket that listens on this loopback port; connections wait in it until a server that inherits it takes them.

    Raises:
        OSError: another program listens there.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def require_free(port: int, service: str, remedy: str) -> int:
    """Return `port`, or refuse when another program listens on it.

    Raises:
        PortTaken: naming the service, the port and the remedy.
    """
    if not 1 <= port <= 65535:
        raise PortTaken(f"{port} is not a port number for {service}: ports are 1 to 65535; {remedy}.")
    if not is_free(port):
        raise PortTaken(f"Port {port}, wanted for {service}, is in use by another program on this machine; {remedy}.")
    return port


class PortBook:
    """Remembers which port each service had, so that stored links stay valid over restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def choose(self, service: str, *, wanted: int | None = None, first_choice: int | None = None) -> int:
        """The port for a service: the wanted one, else the remembered one, else a first choice, else any free one.

        Raises:
            PortTaken: the port wanted by number is in use.
        """
        if wanted is not None:
            port = require_free(wanted, service, "stop that program or ask for another port")
        else:
            candidates = [self._read().get(service), first_choice]
            port = next((port for port in candidates if port and is_free(port)), None) or free_port()
        self._write({**self._read(), service: port})
        return port

    def listen(self, service: str, *, wanted: int | None = None, first_choice: int | None = None) -> socket.socket:
        """The same choice as `choose`, as a listening socket to hand to the server, so that nobody else gets the port.

        Raises:
            PortTaken: the port wanted by number is in use.
        """
        while True:
            try:
                return listen(self.choose(service, wanted=wanted, first_choice=first_choice))
            except OSError:  # another program was faster; the next choice sees it
                continue

    def forget(self, service: str) -> None:
        """Drop a remembered port, after losing the race for it."""
        self._write({name: port for name, port in self._read().items() if name != service})

    def _read(self) -> dict[str, int]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}

    def _write(self, ports: dict[str, int]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        partial.write_text(json.dumps(ports, indent=1))
        partial.replace(self._path)
