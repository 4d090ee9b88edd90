"""A private PostgreSQL with PostGIS: durable for real use, fast and throwaway for tests."""

import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from devstack.binaries import find_postgres
from devstack.cluster import SUPERUSER, make_cluster
from devstack.ports import LOOPBACK, PortBook
from devstack.private_server import PrivateServer
from devstack.processes import Child, is_alive, spawn, wait_until, working_in
from devstack.secrets import SecretStore
from devstack.unprivileged import unprivileged_prefix

ROLES = (SUPERUSER, "thawloop", "labelstudio")
_COMMON = {"listen_addresses": LOOPBACK, "unix_socket_directories": "", "max_connections": "200", "jit": "off"}
_COMMON |= {"timezone": "UTC", "log_timezone": "UTC"}
_DURABLE = {"shared_buffers": "256MB"}
_THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_level": "minimal"}
_THROWAWAY |= {"max_wal_senders": "0", "shared_buffers": "128MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"}


class PostgresServer(PrivateServer):
    """A cluster in `folder`; `durable` keeps its data safe over crashes."""

    name = "The private PostgreSQL"
    service = "postgres"
    start_seconds = 120
    stop_signal = signal.SIGINT  # PostgreSQL's fast shutdown
    stop_seconds = 60

    def __init__(
        self, folder: Path, durable: bool, secrets: SecretStore, ports: PortBook, report: Callable[[str], None]
    ) -> None:
        super().__init__(folder, folder / "postgres.log", secrets, ports, report)
        self._data = folder / "data"
        self._durable = durable

    def url(self, database: str = "thawloop", role: str = "thawloop", scheme: str = "postgis") -> str:
        """A URL with password, as `DATABASE_URL` wants it."""
        return f"{scheme}://{role}:{self._password(role)}@{LOOPBACK}:{self.port}/{database}"

    def password(self, role: str) -> str:
        """The generated password of one of the cluster's roles."""
        return self._password(role)

    def has_database(self, name: str) -> bool:
        """Whether the cluster has a database of that name."""
        with self._superuser() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        return found is not None

    def create_database(self, name: str, owner: str, template: str = "template1") -> None:
        """Create a database that only its owner may enter; template1 has PostGIS, template0 is bare."""
        with self._superuser() as connection:
            command = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
            connection.execute(command.format(*map(sql.Identifier, (name, owner, template))))
            connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists."""
        with self._superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def rename_database(self, name: str, new_name: str) -> None:
        """Rename a database: the last step of filling one, so that a half-filled one is never taken for whole."""
        with self._superuser() as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(new_name))
            )

    def _password(self, role: str) -> str:
        return self._secrets.get(f"postgres-{role}")

    def _superuser(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url("postgres", SUPERUSER, "postgresql"), autocommit=True, connect_timeout=5)

    def _prepare(self) -> None:
        if not self._data.exists():
            make_cluster(self._data, find_postgres(), {role: self._password(role) for role in ROLES})
        self._remove_stale_lock()

    def _spawn(self) -> Child:
        binaries = find_postgres()
        settings = _COMMON | (_DURABLE if self._durable else _THROWAWAY) | {"port": str(self.port)}
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return spawn(
            [binaries.program("postgres"), "-D", str(self._data), *arguments],
            log=self.log,
            environment=binaries.environment,
            prefix=unprivileged_prefix(self._data),
            death_signal=self.stop_signal,
        )

    def _remove_stale_lock(self) -> None:
        """Remove the lock of a killed server that nobody has waited for: PostgreSQL takes a zombie for a live one.

        Its children end by themselves, soon; until then the lock stays.
        """
        lock = self._data / "postmaster.pid"
        if not lock.exists() or is_alive(int(lock.read_text().split()[0])):
            return
        if wait_until(lambda: not working_in(self._data), seconds=30, alive=lambda: True):
            lock.unlink(missing_ok=True)

    def _answers(self) -> bool:
        """Whether the server on our port knows our password and keeps our data folder."""
        try:
            with self._superuser() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(str(row[0])) == self._data
