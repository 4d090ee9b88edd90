"""A private Label Studio in its own environment, with its own database and generated credentials."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from devstack.errors import ServiceFailed, ServiceMissing
from devstack.instance import Instance
from devstack.labelstudio_database import INSIDE, prepare_database
from devstack.paths import labelstudio_python
from devstack.ports import LOOPBACK, PortBook, is_free
from devstack.postgres import PostgresServer
from devstack.processes import Child, spawn, stop, tail, wait_until
from devstack.secrets import SecretStore, hex_token
from devstack.unprivileged import unprivileged_prefix

USERNAME = "lead@thawloop.local"
START_SECONDS = 300
# All of our environment that Label Studio sees: it takes DEBUG, HOST, SECRET_KEY and many more for its own settings.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class LabelStudioServer:
    """Where Label Studio is and how to get in: `token` is a legacy API token, `username`/`password` for people."""

    url: str
    username: str
    token: str = field(repr=False)
    password: str = field(repr=False)


class LabelStudio:
    """Label Studio under gunicorn, one process with threads; started by us, or found running in the same folder.

    Args:
        folder: Its files.
        postgres: The private server that gets a database for it; None means SQLite in `folder`.
        secrets: Where its password, token and secret key are kept.
        ports: Remembers its port, because links to it are stored.
        logs: Folder of its log.
        report: Called with a line of progress every five seconds while it starts.
        public_url: Where people's browsers find it, if a proxy stands in front; may have a path.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer | None,
        secrets: SecretStore,
        ports: PortBook,
        logs: Path,
        report: Callable[[str], None],
        public_url: str | None = None,
    ) -> None:
        self.folder = folder
        self.log = logs / "labelstudio.log"
        self._note = folder / "instance.json"
        self._postgres = postgres
        self._secrets = secrets
        self._ports = ports
        self._report = report
        self._public_url = public_url
        self._child: Child | None = None
        self._port = 0

    def start(self, port: int | None = None, first_choice: int | None = None) -> LabelStudioServer:
        """Bring the server up (on `port` if given, else where it was before), or find it running.

        Raises:
            ServiceMissing: Label Studio's environment is not there.
            PortTaken: the port asked for is in use.
            ServiceFailed: it does not come up.
        """
        if self._running():
            return self.server
        python = labelstudio_python()
        if not python.exists():
            raise ServiceMissing(f"Label Studio is not installed (there is no {python}): run `make install`.")
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = unprivileged_prefix(self.folder)
        environment = self._settings()
        prepare_database([*prefix, str(python)], self._postgres, environment, self.folder, self._report)
        for _attempt in range(3):  # between choosing a free port and listening on it another program can take it
            self._port = self._ports.choose("labelstudio", wanted=port or self._port or None, first_choice=first_choice)
            self._child = child = spawn(
                [str(python), str(INSIDE / "server.py"), f"{LOOPBACK}:{self._port}"],
                log=self.log,
                environment={**environment, "LABEL_STUDIO_HOST": self._public_url or self.server.url},
                inherit=False,
                prefix=prefix,
                cwd=self.folder,
            )
            if wait_until(
                self._answers,
                seconds=START_SECONDS,
                alive=lambda child=child: child.poll() is None,  # type: ignore[misc]
                waiting=lambda elapsed: self._report(f"Label Studio is starting ({elapsed:.0f} s)"),
            ):
                Instance(child.pid, self._port).write(self._note)
                return self.server
            self.stop()
            if port or is_free(self._port):
                break  # another port would not help
            self._ports.forget("labelstudio")
            self._port = 0
        raise ServiceFailed(f"Label Studio did not come up; the end of its log {self.log}:\n{tail(self.log)}")

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
            stop(self._child, patience_seconds=15)
            self._child = None
            self._note.unlink(missing_ok=True)

    @property
    def server(self) -> LabelStudioServer:
        """Address and credentials."""
        return LabelStudioServer(
            url=f"http://{LOOPBACK}:{self._port}",
            username=USERNAME,
            token=self._secrets.get("labelstudio-token", hex_token),
            password=self._secrets.get("labelstudio-password"),
        )

    def _settings(self) -> dict[str, str]:
        """Label Studio's settings: nothing leaves this machine, our loopback webhooks are allowed."""
        public = urlsplit(self._public_url or "")
        settings = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {
            "HOME": str(self.folder),
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder),
            "LABEL_STUDIO_USERNAME": USERNAME,
            "LABEL_STUDIO_PASSWORD": self._secrets.get("labelstudio-password"),
            "LABEL_STUDIO_USER_TOKEN": self._secrets.get("labelstudio-token", hex_token),
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "SECRET_KEY": self._secrets.get("labelstudio-secret-key"),
            "COLLECT_ANALYTICS": "false",
            "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "ALLOWED_HOSTS": ",".join([LOOPBACK, "localhost", *([public.hostname] if public.hostname else [])]),
            "CSRF_TRUSTED_ORIGINS": f"{public.scheme}://{public.netloc}" if self._public_url else "",
            "CORS_ALLOW_ALL_ORIGINS": "false",
            # Webhooks and the ML backend are on loopback; only cloud metadata addresses stay forbidden.
            "USE_DEFAULT_BANNED_SUBNETS": "false",
            "USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
            "WEBHOOK_TIMEOUT": "5",
            "ML_TIMEOUT_PREDICT": "15",
            "LOG_LEVEL": "WARNING",
            "DEBUG": "false",
        }
        if self._postgres is None:
            return {**settings, "DJANGO_DB": "sqlite"}
        return {
            **settings,
            "DJANGO_DB": "default",
            "POSTGRE_HOST": LOOPBACK,
            "POSTGRE_PORT": str(self._postgres.port),
            "POSTGRE_USER": "labelstudio",
            "POSTGRE_PASSWORD": self._postgres.password("labelstudio"),
            "POSTGRE_NAME": "labelstudio",
        }

    def _running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None and self._answers()
        note = Instance.read(self._note)
        if note is None:
            return False
        before, self._port = self._port, note.port
        if not self._answers():
            self._port = before
            return False
        return True

    def _answers(self) -> bool:
        """Whether the server on our port knows our token."""
        headers = {"Authorization": f"Token {self.server.token}"}
        try:
            answer = httpx.get(f"{self.server.url}/api/current-user/whoami", headers=headers, timeout=30)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.json()["email"] == USERNAME
