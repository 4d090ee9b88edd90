"""What the private servers have in common: a port, a process, and a note by which a second command finds them."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from devstack.errors import ServiceFailed
from devstack.instance import Instance
from devstack.ports import PortBook, is_free
from devstack.processes import Child, stop, tail, wait_until
from devstack.secrets import SecretStore

_ATTEMPTS = 3  # between choosing a free port and listening on it another program can take it


class PrivateServer(ABC):
    """A server in `folder`; started by us, or found running because another process of ours started it.

    Args:
        folder: Its files.
        log: What it writes.
        secrets: Where its passwords are kept.
        ports: Remembers its port.
        report: Called with a line of progress every five seconds while it starts.

    Attributes:
        name: What people call it.
        service: What the port book calls it.
        start_seconds: How long it may take until it answers.
        stop_signal: What asks it to end.
        stop_seconds: How long it may take to end.
        port: Where it listens on loopback; 0 before the first start.
    """

    name: ClassVar[str]
    service: ClassVar[str]
    start_seconds: ClassVar[float]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float]

    def __init__(
        self, folder: Path, log: Path, secrets: SecretStore, ports: PortBook, report: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.log = log
        self.port = 0
        self._note = folder / "instance.json"
        self._secrets = secrets
        self._ports = ports
        self._report = report
        self._child: Child | None = None
        self._is_ours = False

    def start(self, port: int | None = None, *, first_choice: int | None = None) -> None:
        """Bring the server up, or find it running.

        Args:
            port: Where it must listen; None: where it did before, else on `first_choice`, else on a free port.
            first_choice: The port for the first time, if it is free.

        Raises:
            ServiceMissing: its programs are not installed.
            PortTaken: the port asked for is in use.
            ServiceFailed: it does not come up.
        """
        if self._find_running():
            self._is_ours = self._is_running()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        for _ in range(_ATTEMPTS):
            self.port = self._ports.choose(self.service, wanted=port or self.port or None, first_choice=first_choice)
            self._child = self._spawn()
            if wait_until(
                self._answers,
                seconds=self.start_seconds,
                alive=self._is_running,
                waiting=lambda elapsed: self._report(f"{self.name} is starting ({elapsed:.0f} s)"),
            ):
                Instance(self._child.pid, self.port).write(self._note)
                self._is_ours = True
                return
            self._end()
            if port or is_free(self.port):
                break  # another port would not help
            self._ports.forget(self.service)
            self.port = 0
        raise ServiceFailed(f"{self.name} did not come up; the end of its log {self.log}:\n{tail(self.log)}")

    def restart_if_ended(self) -> bool:
        """Start the server again, on its port, if it ended by itself; whether that was so.

        Raises:
            LocalServiceError: it does not come up again.
        """
        if not self._is_ours or self._is_running():
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Shut the server down, if this process started it."""
        self._is_ours = False
        self._end()

    @property
    def pid(self) -> int | None:
        """Process id when this process started it."""
        return self._child.pid if self._child else None

    @abstractmethod
    def _prepare(self) -> None:
        """Make what must be there before the server starts: its data, its database."""

    @abstractmethod
    def _spawn(self) -> Child:
        """Start the process, to listen on `port`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether what listens on `port` is this server: it knows our secret."""

    def _end(self) -> None:
        if self._child is not None:
            stop(self._child, self.stop_signal, self.stop_seconds)
            self._child = None
            self._note.unlink(missing_ok=True)

    def _is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _find_running(self) -> bool:
        """Whether the note leads to this server; `port` is its port then."""
        note = Instance.read(self._note)
        if note is None:
            return False
        before, self.port = self.port, note.port
        if not self._answers():
            self.port = before
            return False
        return True
