"""A private PostgreSQL with PostGIS: durable for real use, fast and throwaway for tests."""

import signal
from pathlib import Path

import psycopg
from psycopg import sql

from devstack.binaries import find_postgres
from devstack.cluster import SUPERUSER, make_cluster
from devstack.errors import ServiceFailed
from devstack.instance import Instance
from devstack.ports import LOOPBACK, PortBook, is_free
from devstack.processes import Child, is_alive, spawn, stop, tail, wait_until, working_in
from devstack.secrets import SecretStore
from devstack.unprivileged import unprivileged_prefix

ROLES = (SUPERUSER, "thawloop", "labelstudio")
_COMMON = {"listen_addresses": LOOPBACK, "unix_socket_directories": "", "max_connections": "200", "jit": "off"}
_COMMON |= {"timezone": "UTC", "log_timezone": "UTC"}
_DURABLE = {"shared_buffers": "256MB"}
_THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_level": "minimal"}
_THROWAWAY |= {"max_wal_senders": "0", "shared_buffers": "128MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"}


class PostgresServer:
    """A cluster in `folder`; started by us, or found running because another process of ours started it."""

    def __init__(self, folder: Path, durable: bool, secrets: SecretStore, ports: PortBook) -> None:
        self.folder = folder
        self.log = folder / "postgres.log"
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
            ServiceMissing: PostgreSQL with PostGIS is not installed.
            ServiceFailed: it does not come up.
        """
        if self._find_running():
            return
        binaries = find_postgres()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._data.exists():
            make_cluster(self._data, binaries, {role: self._password(role) for role in ROLES})
        self._remove_stale_lock()
        prefix = unprivileged_prefix(self._data)
        for _attempt in range(3):  # between choosing a free port and listening on it another program can take it
            self.port = self._ports.choose("postgres", wanted=self.port or None)
            settings = _COMMON | (_DURABLE if self._durable else _THROWAWAY) | {"port": str(self.port)}
            arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            self._child = child = spawn(
                [binaries.program("postgres"), "-D", str(self._data), *arguments],
                log=self.log,
                environment=binaries.environment,
                prefix=prefix,
                death_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
            )
            if wait_until(self._answers, seconds=120, alive=lambda child=child: child.poll() is None):  # type: ignore[misc]
                Instance(child.pid, self.port).write(self._note)
                return
            self.stop()
            if is_free(self.port):
                break  # another port would not help
            self._ports.forget("postgres")
            self.port = 0
        raise ServiceFailed(f"The private PostgreSQL in {self.folder} did not come up; its log ends:\n{tail(self.log)}")

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
            stop(self._child, signal.SIGINT, 60)
            self._child = None
            self._note.unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """Process id when this process started it."""
        return self._child.pid if self._child else None

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

    def _remove_stale_lock(self) -> None:
        """Remove the lock of a killed server that nobody has waited for: PostgreSQL takes a zombie for a live one.

        Its children end by themselves, soon; until then the lock stays.
        """
        lock = self._data / "postmaster.pid"
        if not lock.exists() or is_alive(int(lock.read_text().split()[0])):
            return
        if wait_until(lambda: not working_in(self._data), seconds=30, alive=lambda: True):
            lock.unlink(missing_ok=True)

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
            with self._superuser() as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(str(row[0])) == self._data
