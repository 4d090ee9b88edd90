"""Artifacts are complete or absent."""

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from thawloop.core.errors import Refused
from thawloop.core.storage import (
    StorageFull,
    artifact,
    explain_full_disk,
    publish_directory,
    sha256,
    sweep_leftovers,
)


@pytest.fixture(autouse=True)
def artifacts(settings, tmp_path: Path) -> Path:
    settings.THAWLOOP_ARTIFACTS = str(tmp_path / "artifacts")
    settings.VAR_DIR = tmp_path / "var"
    return tmp_path / "artifacts"


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_published_directory_appears_whole(artifacts: Path) -> None:
    with publish_directory("releases/peel/1.0.0") as folder:
        (folder / "chips").mkdir()
        (folder / "chips" / "a.tif").write_bytes(b"tiff")
        assert not artifact("releases/peel/1.0.0").exists()
    assert artifact("releases/peel/1.0.0") == artifacts / "releases/peel/1.0.0"
    assert listing(artifacts) == {
        "releases",
        "releases/peel",
        "releases/peel/1.0.0",
        "releases/peel/1.0.0/chips",
        "releases/peel/1.0.0/chips/a.tif",
    }


def test_nothing_is_left_of_a_directory_whose_writing_failed(artifacts: Path) -> None:
    def write_and_fail() -> None:
        with publish_directory("a") as folder:
            (folder / "half").write_text("done")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert listing(artifacts) == set()


def test_what_is_published_stays_unless_replaced() -> None:
    for text, replace in (("first", False), ("second", False)):
        with publish_directory("a", replace=replace) as folder:
            (folder / "x").write_text(text)
    assert (artifact("a") / "x").read_text() == "first"
    with publish_directory("a", replace=True) as folder:
        (folder / "x").write_text("third")
    assert (artifact("a") / "x").read_text() == "third"
    assert listing(artifact("a").parent) == {"a", "a/x"}


def test_of_two_who_publish_at_once_the_first_wins() -> None:
    with publish_directory("a") as late:
        (late / "x").write_text("late")
        with publish_directory("a") as early:
            (early / "x").write_text("early")
    assert (artifact("a") / "x").read_text() == "early"


def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing(artifacts: Path) -> None:
    def write_to_a_full_disk() -> None:
        with publish_directory("releases/peel/1.0.0", needed_bytes=3_000_000_000) as folder:
            (folder / "part").write_text("x")
            (folder / "chip.tif").symlink_to("/dev/full")  # every write to it fails with the kernel's ENOSPC
            (folder / "chip.tif").write_bytes(b"x" * 100_000)

    with pytest.raises(StorageFull, match=r"releases/peel is full.*needs about 3,000 MB.*Free some space") as caught:
        write_to_a_full_disk()
    assert isinstance(caught.value, Refused)
    assert listing(artifacts / "releases" / "peel") == set()


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 1 MB in a namespace of our own; GDAL notices, and says it in words only."""
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import numpy, rasterio
from django.conf import settings
settings.configure(THAWLOOP_ARTIFACTS={str(tmp_path / "small")!r})
from thawloop.core.storage import StorageFull, publish_directory
try:
    with publish_directory("a") as folder:
        with rasterio.open(folder / "x.tif", "w", driver="GTiff", width=2000, height=2000, count=1, dtype="uint8") as f:
            f.write(numpy.random.default_rng(0).integers(0, 255, (1, 2000, 2000)).astype("uint8"))
except StorageFull as error:
    print("said:", error)
import os
print("left:", os.listdir({str(tmp_path / "small")!r}))
"""
    (tmp_path / "small").mkdir()
    (tmp_path / "script.py").write_text(script)
    command = f"mount -t tmpfs -o size=1m none {tmp_path}/small && {sys.executable} {tmp_path}/script.py"
    ran = subprocess.run(
        ["unshare", "--user", "--mount", "--map-root-user", "sh", "-c", command], capture_output=True, text=True
    )
    if "mount:" in ran.stderr or "unshare" in ran.stderr:
        pytest.skip("no user namespaces here")
    assert "said: The disk that holds" in ran.stdout, ran.stderr
    assert "left: []" in ran.stdout


def test_libraries_that_say_it_in_words_are_understood(tmp_path: Path) -> None:
    with pytest.raises(StorageFull), explain_full_disk(tmp_path / "not" / "yet", "labels.gpkg"):
        raise sqlite3.OperationalError("database or disk is full")
    with pytest.raises(ValueError, match="other"), explain_full_disk(tmp_path, "x"):
        raise ValueError("other")


@pytest.mark.parametrize("name", ["", "/etc", "../x", "a/../../x", "a//b", "a/", ".hidden", "a/.hidden", "a\0b", "./a"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="not an artifact name"):
        artifact(name)


def test_leftovers_of_killed_processes_are_swept(artifacts: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (artifacts / "releases").mkdir(parents=True)
    host = socket.gethostname()
    left = artifacts / "releases" / f".1.0.0.{host}.{dead.pid}.abcd1234.partial"
    live = artifacts / "releases" / f".1.1.0.{host}.{os.getpid()}.abcd1234.partial"
    young = artifacts / "releases" / ".1.2.0.other.host.1.abcd1234.partial"
    old = artifacts / "releases" / ".1.3.0.other.host.1.abcd1234.partial"
    for folder in (left, live, young, old):
        folder.mkdir()
        (folder / "x").write_text("x")
    os.utime(old, (0, 0))
    said = sweep_leftovers()
    assert [path.exists() for path in (left, live, young, old)] == [False, True, True, False]
    assert len(said) == 2


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_artifacts_kept_elsewhere_are_uploaded_and_fetched(scheme: str, settings, tmp_path: Path) -> None:
    settings.THAWLOOP_ARTIFACTS = {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/bucket"}[scheme]
    with publish_directory("models/peel-v1") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "model.safetensors").write_bytes(b"weights")
        (folder / "model.json").write_text("{}")
    settings.VAR_DIR = tmp_path / "another machine"
    fetched = artifact("models/peel-v1")
    assert fetched.is_relative_to(tmp_path / "another machine")
    assert listing(fetched) == {"sub", "sub/model.safetensors", "model.json"}
    assert (fetched / "sub" / "model.safetensors").read_bytes() == b"weights"
    assert not artifact("models/other").exists()


def test_an_upload_that_was_cut_off_does_not_exist(settings, tmp_path: Path) -> None:
    settings.THAWLOOP_ARTIFACTS = f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").pipe_file(f"{tmp_path.name}/a/x", b"half")
    assert not artifact("a").exists()


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
