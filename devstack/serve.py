"""Everything ThawLoop is, running on this machine: services, web, workers, reconciler and ML backend."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from devstack.errors import ServiceFailed
from devstack.folder_lock import FolderLock
from devstack.labelstudio import LabelStudioServer
from devstack.paths import REPOSITORY
from devstack.ports import LOOPBACK
from devstack.processes import tail, wait_until
from devstack.reloading import Reloader
from devstack.secrets import keep_private, write_private
from devstack.stack import LocalStack
from devstack.supervisor import Process
from devstack.unprivileged import namespace_prefix

ADMIN = "admin"
QUEUES = ("default", "raster", "gpu")
ENVIRONMENT_FILE = "environment"
_GIVEN = "# Given from outside: "
LABEL_STUDIO = ("LABEL_STUDIO_URL", "LABEL_STUDIO_PUBLIC_URL", "LABEL_STUDIO_TOKEN")
AS_INSTALLED = "thawloop.settings"  # our processes run what a real installation runs
_WEB_SECONDS = 120


class Serve:
    """All servers and processes of one machine, with data kept in `root`.

    `start()` brings them up, `wait()` keeps the calling program until Ctrl-C, `stop()` ends them. Servers that the
    environment names (DATABASE_URL, REDIS_URL, LABEL_STUDIO_URL with LABEL_STUDIO_TOKEN) are used as they are.

    Args:
        root: Folder for data, secrets and logs; made when missing.
        port: Port of the web pages; refused when taken. None: the one used before, else 8000, else a free one.
        labelstudio_port: The same for Label Studio (first choice 8080).
        data_roots: Folders that rasters and labels may be read from, besides `root/data`.
        labelstudio: False: none is started (one that the environment names is used all the same).
        settings: Settings module of our processes.
        reload: Restart our processes when a source file changes.
        report: Called with one line per step.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = None,
        labelstudio_port: int | None = None,
        data_roots: tuple[Path, ...] = (),
        labelstudio: bool = True,
        settings: str = AS_INSTALLED,
        reload: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self._report = report or (lambda line: None)
        self._wanted_port = port
        self._wanted_labelstudio_port = labelstudio_port
        self._data_roots = data_roots
        self._wants_labelstudio = labelstudio
        self._settings = {"DJANGO_SETTINGS_MODULE": settings}
        self._lock = FolderLock(self.root)
        self._outside = self._given_from_outside()
        self._labelstudio: LabelStudioServer | None = None
        self._listeners: dict[str, socket.socket] = {}
        self.stack = LocalStack(
            self.root,
            database_url=self._outside.get("DATABASE_URL"),
            redis_url=self._outside.get("REDIS_URL"),
            report=self._report,
        )
        self._reloader = Reloader(self.stack.restart_processes, self._report) if reload else None

    def start(self) -> None:
        """Bring everything up; when one part fails, what runs is stopped again.

        Raises:
            LocalServiceError: a sentence about what is missing, taken or failing.
        """
        keep_private(self.root)
        self._lock.take()
        try:
            self._listeners["web"] = self.stack.ports.listen("web", wanted=self._wanted_port, first_choice=8000)
            self._listeners["ml-backend"] = self.stack.ports.listen("ml-backend", first_choice=9090)
            self._step("PostGIS and Redis", self.stack.start)
            with ThreadPoolExecutor(1) as beside:
                labelstudio = beside.submit(self._step, "Label Studio", self._start_labelstudio)
                self._step("Tables, static files, administrator", lambda: self._manage("prepare", "--admin", ADMIN))
                labelstudio.result()
            write_private(self.root / ENVIRONMENT_FILE, self._environment_lines())
            self.stack.supervise(self._processes(), {**self.environment, **self._settings})
            self._step("Web pages", self._wait_for_web)
            if self._reloader is not None:
                self._reloader.start()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Return when somebody presses Ctrl-C (or sends SIGTERM); meanwhile report each restart of a process."""
        asked = threading.Event()
        before = {sign: signal.signal(sign, lambda *_: asked.set()) for sign in (signal.SIGINT, signal.SIGTERM)}
        restarts = {status.name: status.restarts for status in self.stack.status()}
        try:
            while not asked.wait(1.0):
                for status in self.stack.status():
                    if status.restarts > restarts.get(status.name, 0):
                        restarts[status.name] = status.restarts
                        self._report(f"{status.name} ended and was started again; its log is {status.log}")
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)

    def stop(self) -> None:
        """End everything that was started here; a second Ctrl-C does not cut it short."""
        with _ignore_interrupts():
            if self._reloader is not None:
                self._reloader.stop()
            self.stack.stop()
            while self._listeners:
                self._listeners.popitem()[1].close()
            self._lock.release()

    @property
    def urls(self) -> dict[str, str]:
        """Where people go, by name."""
        urls = {
            "ThawLoop": self.environment["THAWLOOP_URL"],
            "Admin": f"{self.environment['THAWLOOP_URL']}/admin/",
            "API": f"{self.environment['THAWLOOP_URL']}/api/docs/",
        }
        if labelstudio := self.environment.get("LABEL_STUDIO_PUBLIC_URL") or self.environment.get("LABEL_STUDIO_URL"):
            urls["Label Studio"] = labelstudio
        return urls

    @property
    def credentials(self) -> dict[str, tuple[str, str]]:
        """User name and password, by the same names as `urls`."""
        known = {"ThawLoop": (ADMIN, self.stack.secrets.get("admin-password"))}
        if self._labelstudio is not None:
            known["Label Studio"] = (self._labelstudio.username, self._labelstudio.password)
        return known

    def directory(self, *, show_passwords: bool = False) -> str:
        """Where to go and how to get in, as a table. Passwords are shown if they are new, or on request."""
        secrets = {"ThawLoop": "admin-password", "Label Studio": "labelstudio-password"}
        rows = [("", "address", "user", "password")]
        for name, url in self.urls.items():
            user, password = self.credentials.get(name, ("", ""))
            if password and not show_passwords and secrets[name] not in self.stack.secrets.made:
                password = f"in {self.stack.secrets.folder / secrets[name]}"
            rows.append((name, url, user, password))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    @property
    def environment(self) -> dict[str, str]:
        """What every process of ours needs to find everything; also in the file `root/environment` (mode 0600)."""
        web = self._address("web")
        labelstudio = {name: self._outside[name] for name in LABEL_STUDIO if name in self._outside}
        if self._labelstudio is not None:
            url, token = self._labelstudio.url, self._labelstudio.token
            public = self._outside.get("LABEL_STUDIO_PUBLIC_URL", url)
            labelstudio = {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_PUBLIC_URL": public, "LABEL_STUDIO_TOKEN": token}
        roots = [self.root / "data", REPOSITORY / "var" / "data", *self._data_roots]
        return {
            **self.stack.environment,
            **labelstudio,
            "THAWLOOP_VAR": str(self.root),
            "THAWLOOP_URL": self._outside.get("THAWLOOP_URL", web),
            "THAWLOOP_CALLBACK_URL": self._outside.get("THAWLOOP_CALLBACK_URL", web),
            "ML_BACKEND_URL": self._address("ml-backend"),
            "THAWLOOP_DATA_ROOTS": self._outside.get("THAWLOOP_DATA_ROOTS", ",".join(map(str, roots))),
            "THAWLOOP_WEBHOOK_SECRET": self.stack.secrets.get("webhook"),
        }

    def _address(self, service: str) -> str:
        return f"http://{LOOPBACK}:{self._listeners[service].getsockname()[1]}"

    def _start_labelstudio(self) -> None:
        if "LABEL_STUDIO_URL" in self._outside:
            if "LABEL_STUDIO_TOKEN" not in self._outside:
                raise ServiceFailed("LABEL_STUDIO_URL is set without LABEL_STUDIO_TOKEN: set both, or neither.")
        elif self._wants_labelstudio:
            self._labelstudio = self.stack.start_labelstudio(
                self._wanted_labelstudio_port,
                first_choice=8080,
                public_url=self._outside.get("LABEL_STUDIO_PUBLIC_URL"),
            )

    def _given_from_outside(self) -> dict[str, str]:
        """Our environment without what a stack wrote down: the settings read that for commands in other terminals."""
        files = [self.root / ENVIRONMENT_FILE, *REPOSITORY.glob(f"var/*/{ENVIRONMENT_FILE}")]
        written = {line for file in files if file.exists() for line in _own_lines(file)}
        return {name: value for name, value in os.environ.items() if value and f"{name}={value}" not in written}

    def _environment_lines(self) -> str:
        lines = [f"{name}={value}" for name, value in self.environment.items()]
        given = [name for name, value in self.environment.items() if self._outside.get(name) == value]
        return "\n".join([*([_GIVEN + " ".join(given)] if given else []), *lines])

    def _processes(self) -> list[Process]:
        return [
            self._server("web", "-m", "gunicorn", "--config", "python:thawloop.serving.web", "--bind"),
            self._command("reconciler"),
            *(self._command("worker", "--queue", queue, name=f"worker-{queue}") for queue in QUEUES),
            self._server("ml-backend", "-m", "ml_backend.server", "--bind"),
        ]

    def _server(self, name: str, *arguments: str) -> Process:
        """A server that takes connections from the socket we listen on: the port is ours from before it starts."""
        listener = self._listeners[name].fileno()
        argv = [sys.executable, *arguments, f"fd://{listener}"]
        return Process(name, argv, cwd=REPOSITORY, prefix=namespace_prefix(), sockets=[listener])

    def _command(self, *arguments: str, name: str | None = None) -> Process:
        return Process(name or arguments[0], [sys.executable, "manage.py", *arguments], cwd=REPOSITORY)

    def _manage(self, *arguments: str) -> None:
        """Run a management command to its end."""
        admin = {"DJANGO_SUPERUSER_PASSWORD": self.stack.secrets.get("admin-password")}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **self.environment, **self._settings, **admin},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
            raise ServiceFailed(f"`manage.py {' '.join(arguments)}` failed:\n{words}")

    def _wait_for_web(self) -> None:
        def answers() -> bool:
            try:
                return httpx.get(f"{self._address('web')}/healthz", timeout=30).status_code == 200
            except httpx.TransportError:
                return False

        if not wait_until(answers, seconds=_WEB_SECONDS, alive=lambda: True):
            log = self.stack.logs / "web.log"
            raise ServiceFailed(f"The web pages did not come up; the end of {log}:\n{tail(log)}")

    def _step(self, what: str, action: Callable[[], None]) -> None:
        started = time.monotonic()
        action()
        self._report(f"{what}: ready in {time.monotonic() - started:.1f} s")


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM for a while (only the main thread can hear them)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sign: signal.signal(sign, signal.SIG_IGN) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _own_lines(file: Path) -> list[str]:
    """What a stack wrote down about its own servers: those it was given are the user's choice the next time, too."""
    lines = file.read_text().splitlines()
    given = {name for line in lines if line.startswith(_GIVEN) for name in line.removeprefix(_GIVEN).split()}
    return [line for line in lines if line.partition("=")[0] not in given]
