"""An installation of before, upgraded by `manage.py migrate`, for tests to look at and for tests to use."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from pytest_django import Settings

from tests.upgrade.installation import put_artifacts, put_scenes, restore, write_placeholders

if TYPE_CHECKING:
    from devstack.stack import LocalStack

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
NO_LABEL_STUDIO = "http://127.0.0.1:9"
Blocker = Any  # pytest-django's


@dataclass(frozen=True)
class Installation:
    """Where it is: its files, and its database on a server of ours."""

    root: Path
    server: str
    database: str

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"


@pytest.fixture(scope="module")
def give_weights() -> Callable[[str, str, Path], None]:
    """How the models get weights, which are too large to be kept."""
    return write_placeholders


@pytest.fixture(scope="module")
def upgraded(
    local_stack: "LocalStack",
    tmp_path_factory: pytest.TempPathFactory,
    give_weights: Callable[[str, str, Path], None],
) -> Iterator[Installation]:
    """The installation after `manage.py migrate`; tests only look at it."""
    root = tmp_path_factory.mktemp("installation")
    server = local_stack.database_url.replace("postgis:", "postgresql:")
    made = Installation(root, server, f"upgraded_{os.getpid()}")
    put_artifacts(root)
    put_scenes(root)
    _drop(made)
    try:
        restore(server, made.database, root)
        give_weights(server, made.database, root)
        _migrate(made)
        yield made
    finally:
        _drop(made)


def _migrate(place: Installation) -> None:
    """As an operator does, in a process of its own."""
    address = f"postgis:{place.server.partition(':')[2].rpartition('/')[0]}/{place.database}"
    environment = os.environ | {"DATABASE_URL": address, "THAWLOOP_VAR": str(place.root)}
    command = [sys.executable, str(MANAGE), "migrate", "--no-input", "--verbosity=0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def seen(upgraded: Installation, settings: Settings, django_db_blocker: Blocker) -> Iterator[Installation]:
    """The upgraded installation, which Django is connected to."""
    with connected(upgraded, settings, django_db_blocker):
        yield upgraded


@pytest.fixture
def used(
    upgraded: Installation, tmp_path: Path, settings: Settings, django_db_blocker: Blocker, live_redis: Any
) -> Iterator[Installation]:
    """A copy of the upgraded installation, for a test to change."""
    copy = Installation(tmp_path / "used", upgraded.server, f"used_{os.getpid()}")
    shutil.copytree(upgraded.artifacts, copy.artifacts, copy_function=os.link)
    _execute(upgraded, "CREATE DATABASE {} TEMPLATE {}", copy.database, upgraded.database)
    try:
        with connected(copy, settings, django_db_blocker):
            settings.THAWLOOP_DATA_ROOTS = [str(upgraded.root / "scenes")]  # what the database says
            yield copy
    finally:
        _drop(copy)


@contextmanager
def connected(place: Installation, settings: Settings, blocker: Blocker) -> Iterator[None]:
    """Have Django use the installation's database and files."""
    from django.contrib.contenttypes.models import ContentType
    from django.core.cache import cache
    from django.db import connection

    settings.THAWLOOP_ARTIFACTS = str(place.artifacts)
    settings.THAWLOOP_DATA_ROOTS = [str(place.root / "scenes")]
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = NO_LABEL_STUDIO, "0" * 40
    settings.THAWLOOP_DEVICE, settings.THAWLOOP_TORCH_THREADS = "cpu", 1

    def change_to(database: str) -> None:
        connection.close()
        connection.settings_dict["NAME"] = database
        ContentType.objects.clear_cache()
        cache.clear()

    before = connection.settings_dict["NAME"]
    with blocker.unblock():
        change_to(place.database)
        try:
            yield
        finally:
            change_to(before)


def _execute(place: Installation, command: str, *names: str) -> None:
    with psycopg.connect(place.server, autocommit=True) as connection:
        connection.execute(sql.SQL(command).format(*map(sql.Identifier, names)))


def _drop(place: Installation) -> None:
    _execute(place, "DROP DATABASE IF EXISTS {} WITH (FORCE)", place.database)
