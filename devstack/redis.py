"""A private Redis: with an append-only file for real use (queues survive kill -9), without any file for tests."""

from collections.abc import Callable
from pathlib import Path

import redis

from devstack.binaries import find_redis
from devstack.ports import LOOPBACK, PortBook
from devstack.private_server import PrivateServer
from devstack.processes import Child, spawn
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


class RedisServer(PrivateServer):
    """A Redis in `folder`; `durable` keeps its queues over crashes."""

    name = "The private Redis"
    service = "redis"
    start_seconds = 60
    stop_seconds = 30

    def __init__(
        self, folder: Path, durable: bool, secrets: SecretStore, ports: PortBook, report: Callable[[str], None]
    ) -> None:
        super().__init__(folder, folder / "redis.log", secrets, ports, report)
        self._data = folder / "data"
        self._durable = durable

    @property
    def url(self) -> str:
        """A URL with password, as `REDIS_URL` wants it."""
        return f"redis://:{self._secrets.get('redis')}@{LOOPBACK}:{self.port}/0"

    def _prepare(self) -> None:
        self._data.mkdir(exist_ok=True)

    def _spawn(self) -> Child:
        program = find_redis()
        return spawn(
            [str(program.path), str(self._write_configuration())],
            log=self.log,
            environment=program.environment,
            prefix=unprivileged_prefix(self._data),
        )

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

    def _answers(self) -> bool:
        """Whether the server on our port knows our password and keeps our data folder."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.config_get("dir")["dir"] == str(self._data))
        except redis.RedisError:
            return False
