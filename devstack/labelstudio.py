"""A private Label Studio in its own environment, with its own database and generated credentials."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from devstack.errors import ServiceMissing
from devstack.labelstudio_database import prepare_database
from devstack.paths import INSIDE, labelstudio_python
from devstack.ports import LOOPBACK, PortBook
from devstack.postgres import PostgresServer
from devstack.private_server import PrivateServer
from devstack.processes import Child, spawn
from devstack.secrets import SecretStore, hex_token
from devstack.unprivileged import unprivileged_prefix

USERNAME = "lead@thawloop.local"
# All of our environment that Label Studio sees: it takes DEBUG, HOST, SECRET_KEY and many more for its own settings.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class LabelStudioServer:
    """Where Label Studio is and how to get in: `token` is a legacy API token, `username`/`password` for people."""

    url: str
    username: str
    token: str = field(repr=False)
    password: str = field(repr=False)


class LabelStudio(PrivateServer):
    """Label Studio under gunicorn, one process with threads.

    Args:
        folder: Its files.
        postgres: The private server that gets a database for it; None means SQLite in `folder`.
        secrets: Where its password, token and secret key are kept.
        ports: Remembers its port, because links to it are stored.
        logs: Folder of its log.
        report: Called with a line of progress every five seconds while it starts.
        public_url: Where people's browsers find it, if a proxy stands in front; may have a path.
    """

    name = "Label Studio"
    service = "labelstudio"
    start_seconds = 300
    stop_seconds = 15

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
        super().__init__(folder, logs / "labelstudio.log", secrets, ports, report)
        self._postgres = postgres
        self._public_url = public_url

    @property
    def server(self) -> LabelStudioServer:
        """Address and credentials."""
        return LabelStudioServer(
            url=f"http://{LOOPBACK}:{self.port}",
            username=USERNAME,
            token=self._secrets.get("labelstudio-token", hex_token),
            password=self._secrets.get("labelstudio-password"),
        )

    def _prepare(self) -> None:
        python = labelstudio_python()
        if not python.exists():
            raise ServiceMissing(f"Label Studio is not installed (there is no {python}): run `make install`.")
        command = [*unprivileged_prefix(self.folder), str(python)]
        prepare_database(command, self._postgres, self._settings(), self.folder, self._report)

    def _spawn(self) -> Child:
        return spawn(
            [str(labelstudio_python()), str(INSIDE / "server.py"), f"{LOOPBACK}:{self.port}"],
            log=self.log,
            environment={**self._settings(), "LABEL_STUDIO_HOST": self._public_url or self.server.url},
            inherit=False,
            prefix=unprivileged_prefix(self.folder),
            cwd=self.folder,
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

    def _answers(self) -> bool:
        """Whether the server on our port knows our token."""
        headers = {"Authorization": f"Token {self.server.token}"}
        try:
            answer = httpx.get(f"{self.server.url}/api/current-user/whoami", headers=headers, timeout=30)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.json()["email"] == USERNAME
