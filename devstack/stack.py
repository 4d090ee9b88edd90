"""The services of one machine in one folder: PostGIS, Redis, Label Studio, and our supervised processes."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.errors import LocalServiceError
from devstack.labelstudio import LabelStudio, LabelStudioServer
from devstack.ports import PortBook
from devstack.postgres import PostgresServer
from devstack.processes import end_leftovers, is_alive
from devstack.redis import RedisServer
from devstack.secrets import SecretStore
from devstack.supervisor import Process, Status, Supervisor

MARK = "THAWLOOP_STACK"  # in the environment of supervised processes: "<our process id>:<folder>"
RESTART_PAUSE_SECONDS = 10.0
_THROWAWAY = "thawloop-stack-"


class LocalStack:
    """Private services below one folder, on free loopback ports, gone when this process is gone.

    Use it as a context manager. A second process that opens the same folder finds the running PostGIS and Redis and
    uses them; they live as long as the process that started them.

    Args:
        root: The folder; made when missing. Data, secrets (0600), ports and logs live below it.
        durable: True keeps data safe over crashes; False is fast, for data nobody will miss.
        database_url: Use this PostGIS instead of a private one.
        redis_url: Use this Redis instead of a private one.
        report: Called with a line of progress now and then.
    """

    def __init__(
        self,
        root: Path,
        durable: bool = True,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self.secrets = SecretStore(self.root / "secrets")
        self.ports = PortBook(self.root / "ports.json")
        self.logs = self.root / "logs"
        self._report = report or (lambda line: None)
        self._database_url = database_url
        self._redis_url = redis_url
        self._remove_at_stop = False
        self._postgres = PostgresServer(self.root / "postgres", durable, self.secrets, self.ports, self._report)
        self._redis = RedisServer(self.root / "redis", durable, self.secrets, self.ports, self._report)
        self._labelstudio: LabelStudio | None = None
        self._supervisor: Supervisor | None = None
        self._next_restart = 0.0

    @classmethod
    def throwaway(
        cls,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        report: Callable[[str], None] | None = None,
    ) -> "LocalStack":
        """A fast stack in a fresh temporary folder, which `stop()` removes with everything in it."""
        _remove_abandoned_folders()
        root = Path(tempfile.mkdtemp(prefix=_THROWAWAY))
        (root / "owner").write_text(str(os.getpid()))
        stack = cls(root, durable=False, database_url=database_url, redis_url=redis_url, report=report)
        stack._remove_at_stop = True
        return stack

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start (or find) PostGIS and Redis.

        Raises:
            LocalServiceError: a service is not installed or does not come up; what was started is stopped again.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "starting.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if self._database_url is None:
                    self._postgres.start()
                if self._redis_url is None:
                    self._redis.start()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop what this process started, in reverse order."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        if self._labelstudio is not None:
            self._labelstudio.stop()
            self._labelstudio = None
        self._redis.stop()
        self._postgres.stop()
        if self._remove_at_stop:
            shutil.rmtree(self.root, ignore_errors=True)

    @property
    def database_url(self) -> str:
        """The platform's database, with password."""
        return self._database_url or self._postgres.url()

    @property
    def redis_url(self) -> str:
        """The platform's Redis, with password."""
        return self._redis_url or self._redis.url

    @property
    def environment(self) -> dict[str, str]:
        """What a process of ours needs to find this stack."""
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}

    @property
    def pids(self) -> dict[str, int | None]:
        """Process ids of the services that this process started."""
        return {"postgres": self._postgres.pid, "redis": self._redis.pid}

    def start_labelstudio(
        self, port: int | None = None, *, first_choice: int | None = None, public_url: str | None = None
    ) -> LabelStudioServer:
        """Start (or find) Label Studio; a second call returns the same server.

        Args:
            port: Where it must listen; None: where it did before, else on `first_choice`, else on a free port.
            first_choice: The port for the first time, if it is free.
            public_url: Where people's browsers find it, if a proxy stands in front.

        Raises:
            LocalServiceError: it is not installed, or does not come up, or the port asked for is taken.
        """
        if self._labelstudio is None:
            database = self._postgres if self._database_url is None else None
            self._labelstudio = LabelStudio(
                self.root / "labelstudio", database, self.secrets, self.ports, self.logs, self._report, public_url
            )
        self._labelstudio.start(port, first_choice=first_choice)
        return self._labelstudio.server

    def supervise(self, processes: Sequence[Process], environment: Mapping[str, str] | None = None) -> None:
        """Start these processes and keep them and the servers running; `environment` is added to the stack's.

        What an earlier supervisor of this folder left behind when it was killed is ended first.
        """
        if self._supervisor is None:
            end_leftovers(MARK, str(self.root))
            mark = {MARK: f"{os.getpid()}:{self.root}"}
            environment = {**self.environment, **mark, **(environment or {})}
            self._supervisor = Supervisor(self.logs, environment, also=self._restart_ended)
        self._supervisor.add(processes)

    def restart_processes(self) -> None:
        """End the supervised processes and start them again; the servers run on."""
        if self._supervisor is not None:
            self._supervisor.restart()

    def _restart_ended(self) -> None:
        """Start servers of ours again that ended by themselves (killed, out of memory)."""
        for server in (self._postgres, self._redis, self._labelstudio):
            if server is None or time.monotonic() < self._next_restart:
                continue
            try:
                if server.restart_if_ended():
                    self._report(f"{server.name} ended by itself and was started again")
            except LocalServiceError as error:
                self._report(f"{error} Trying again in {RESTART_PAUSE_SECONDS:.0f} s.")
                self._next_restart = time.monotonic() + RESTART_PAUSE_SECONDS

    def status(self) -> list[Status]:
        """How the supervised processes are doing."""
        return self._supervisor.status() if self._supervisor else []


def _remove_abandoned_folders() -> None:
    """Remove throwaway folders of this account whose owner was killed before it could do so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_THROWAWAY}*"):
        owner = folder / "owner"
        try:
            abandoned = folder.stat().st_uid == os.geteuid() and not is_alive(int(owner.read_text()))
        except (FileNotFoundError, PermissionError, ValueError):
            continue
        if abandoned:
            shutil.rmtree(folder, ignore_errors=True)
