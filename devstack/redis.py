"""A private Redis: with an append-only file for real use (queues survive kill -9), without any file for tests."""

import signal
from pathlib import Path

import redis

from devstack.binaries import find_redis
from devstack.errors import ServiceFailed
from devstack.instance import Instance
from devstack.ports import LOOPBACK, PortBook, is_free
from devstack.processes import Child, spawn, stop, tail, wait_until
from devstack.secrets import SecretStore, write_private
from devstack.unprivileged import unprivileged_prefix

_CONFIGURATION = """\
bind {address}
port {port}
dir "{folder}"
requirepass {password}
daemonize no
save ""
appendonly {durable}
appendfsync everysec
maxmemory-policy noeviction
"""


class RedisServer:
    """A Redis in `folder`; started by us, or found running because another process of ours started it."""

    def __init__(self, folder: Path, durable: bool, secrets: SecretStore, ports: PortBook) -> None:
        self.folder = folder
        self.log = folder / "redis.log"
        self._data = folder / "data"
        self._note = folder / "instance.json"
        self._durable = durable
        self._secrets = secrets
        self._ports = ports
        self._child: Child | None = None
        self.port = 0

    def start(self) -> None:
        """Bring the server up, or find it running.

        Raises:
            ServiceMissing: Redis is not installed.
            ServiceFailed: it does not come up.
        """
        if self._find_running():
            return
        program = find_redis()
        self._data.mkdir(parents=True, exist_ok=True)
        for _attempt in range(3):  # between choosing a free port and listening on it another program can take it
            self.port = self._ports.choose("redis", wanted=self.port or None)
            configuration = self._write_configuration()
            self._child = child = spawn(
                [str(program.path), str(configuration)],
                log=self.log,
                environment=program.environment,
                prefix=unprivileged_prefix(self._data),
            )
            if wait_until(self._answers, seconds=60, alive=lambda child=child: child.poll() is None):  # type: ignore[misc]
                Instance(child.pid, self.port).write(self._note)
                return
            self.stop()
            if is_free(self.port):
                break  # another port would not help
            self._ports.forget("redis")
            self.port = 0
        raise ServiceFailed(f"The private Redis in {self.folder} did not come up; its log ends:\n{tail(self.log)}")

    def mend(self) -> bool:
        """Start the server again, on its port, if it ended by itself; whether that was so.

        Raises:
            LocalServiceError: it does not come up again.
        """
        if self._child is None or self._child.poll() is None:
            return False
        self.start()
        return True

    def stop(self) -> None:
        """Shut the server down, if this process started it."""
        if self._child is not None:
            stop(self._child, signal.SIGTERM, 30)
            self._child = None
            self._note.unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """Process id when this process started it."""
        return self._child.pid if self._child else None

    @property
    def url(self) -> str:
        """A URL with password, as `REDIS_URL` wants it."""
        return f"redis://:{self._secrets.get('redis')}@{LOOPBACK}:{self.port}/0"

    def _write_configuration(self) -> Path:
        """Redis reads its password from a file of mode 0600: the command line is visible to every account."""
        text = _CONFIGURATION.format(
            address=LOOPBACK,
            port=self.port,
            folder=self._data,
            password=self._secrets.get("redis"),
            durable="yes" if self._durable else "no",
        )
        return write_private(self._data / "redis.conf", text)

    def _find_running(self) -> bool:
        note = Instance.read(self._note)
        if note is None:
            return False
        before, self.port = self.port, note.port
        if not self._answers():
            self.port = before
            return False
        return True

    def _answers(self) -> bool:
        """Whether the server on our port knows our password and keeps our data folder."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.config_get("dir")["dir"] == str(self._data))
        except redis.RedisError:
            return False
