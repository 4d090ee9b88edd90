import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devstack.ports import PortBook
from devstack.processes import spawn
from devstack.secrets import SecretStore, hex_token, keep_private, write_private
from devstack.serve import Serve


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "secrets")
    secret = store.get("redis")
    assert SecretStore(tmp_path / "secrets").get("redis") == secret
    assert store.get("postgres") != secret
    assert (tmp_path / "secrets" / "redis").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_concurrent_callers_get_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: SecretStore(tmp_path).get("token", hex_token), range(64)))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_private_file_is_replaced_whole_and_stays_private(tmp_path: Path) -> None:
    for text in ("one", "two"):
        path = write_private(tmp_path / "environment", text)
    assert path.read_text() == "two\n"
    assert path.stat().st_mode & 0o777 == 0o600


def others_may(root: Path) -> list[Path]:
    return [path for path in [root, *root.rglob("*")] if path.stat().st_mode & 0o077]


def test_a_folder_of_an_earlier_version_is_closed_and_new_files_are_private(tmp_path: Path, umask: None) -> None:
    root = tmp_path / "serve"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "web.log").write_text("who logged in")
    (root / "script").write_text("#!/bin/sh")
    (root / "script").chmod(0o755)
    assert others_may(root)
    keep_private(root)
    assert not others_may(root)
    assert (root / "script").stat().st_mode & 0o777 == 0o700
    (root / "artifacts").mkdir()
    (root / "artifacts" / "model.json").write_text("{}")
    assert not others_may(root)


def test_logs_are_private_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    spawn([sys.executable, "-c", "print(1)"], log=tmp_path / "logs" / "one.log").wait()
    assert not others_may(tmp_path / "logs")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with PortBook(tmp_path / "ports.json").listen("web") as listener:
        yield listener


def test_passwords_are_told_when_they_were_made_just_now_or_on_request(tmp_path: Path, listener: socket.socket) -> None:
    first = Serve(tmp_path)
    first._listeners = {"web": listener, "ml-backend": listener}
    first.stack._database_url = first.stack._redis_url = first._outside["LABEL_STUDIO_URL"] = "http://given"
    first._outside["LABEL_STUDIO_TOKEN"] = "t"
    password = first.credentials["ThawLoop"][1]
    assert password in first.directory()
    later = Serve(tmp_path)
    later._listeners, later._outside = first._listeners, first._outside
    later.stack._database_url = later.stack._redis_url = "http://given"
    assert password not in later.directory()
    assert f"in {tmp_path}/secrets/admin-password" in later.directory()
    assert password in later.directory(show_passwords=True)
