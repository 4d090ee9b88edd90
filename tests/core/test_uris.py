"""Only what lies below the data roots may be read."""

import os
from pathlib import Path

import pytest

from thawloop.core.errors import Refused
from thawloop.core.storage import checked_uri


@pytest.fixture(autouse=True)
def root(settings, tmp_path: Path) -> Path:
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path / "data"), "s3://open-data/arctic"]
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "a b.tif").write_bytes(b"x")
    (tmp_path / "database.tif").write_bytes(b"x")
    return tmp_path / "data"


def test_a_file_below_a_root_is_allowed_however_it_is_written(root: Path, monkeypatch) -> None:
    expected = str(root / "a b.tif")
    monkeypatch.chdir(root / "sub")
    for uri in (expected, f"{root}/sub/../a b.tif", "../a b.tif", f"file://{root}/a%20b.tif", f"file://{root}/a b.tif"):
        assert checked_uri(uri) == expected


def test_a_symlink_within_the_roots_is_resolved(root: Path) -> None:
    (root / "link.tif").symlink_to(root / "a b.tif")
    assert checked_uri(str(root / "link.tif")) == str(root / "a b.tif")


def test_a_root_that_is_a_symlink_works(root: Path, settings) -> None:
    (root.parent / "linked").symlink_to(root)
    settings.THAWLOOP_DATA_ROOTS = [str(root.parent / "linked")]
    assert checked_uri(str(root.parent / "linked" / "a b.tif")) == str(root / "a b.tif")


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "file:///etc%2Fpasswd",
        "file://etc/passwd",
        "../../../../../../etc/passwd",
        "/vsicurl/http://169.254.169.254/latest",
        "/vsizip/data.zip/a.tif",
        "/vsis3/open-data/arctic/a.tif",
        "/vsisubfile/0_10,/etc/passwd",
        "/vsistdin/",
        "vrt:///etc/passwd",
        "http://example.org/a.tif",
        "https://example.org/a.tif",
        "ftp://example.org/a.tif",
        "FILE:///etc/passwd",
        "zip:///data/a.zip!a.tif",
        "GTIFF_DIR:1:/etc/passwd",
        "NETCDF:/etc/passwd:x",
        "PG:dbname=thawloop",
        "<VRTDataset/>",
        '{"type": "gdal_streamed_alg"}',
        "",
        "a\0.tif",
        "a\n.tif",
        "s3://open-data/secret/a.tif",
        "s3://open-data/arctic-other/a.tif",
        "s3://other/arctic/a.tif",
        "s3://open-data/arctic/../secret/a.tif",
        "s3://open-data/arctic/%2e%2e/a.tif",
        "s3://open-data/arctic//a.tif",
        "s3://open-data/arctic/a.tif?versionId=1",
        "s3://open-data/arctic/",
    ],
)
def test_everything_else_is_refused(uri: str) -> None:
    with pytest.raises(Refused):
        checked_uri(uri)


def test_a_symlink_that_leads_out_is_refused_and_shown(root: Path) -> None:
    (root / "innocent.tif").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="it leads to /etc/passwd"):
        checked_uri(str(root / "innocent.tif"))


def test_a_neighbour_whose_name_begins_alike_is_refused(root: Path) -> None:
    with pytest.raises(Refused):
        checked_uri(f"{root}base.tif")


def test_the_sentence_names_the_roots_and_the_setting(root: Path) -> None:
    with pytest.raises(Refused, match="THAWLOOP_DATA_ROOTS") as caught:
        checked_uri("/etc/passwd")
    assert str(root) in str(caught.value)
    assert "s3://open-data/arctic" in str(caught.value)


def test_a_missing_file_is_said_to_be_missing_only_below_the_roots(root: Path) -> None:
    with pytest.raises(Refused, match="There is no file"):
        checked_uri(str(root / "missing.tif"))
    with pytest.raises(Refused, match="outside the data roots"):
        checked_uri("/nowhere/missing.tif")


def test_an_object_below_an_s3_prefix_is_given_as_gdal_names_it() -> None:
    assert checked_uri("s3://open-data/arctic/2021/dem.tif") == "/vsis3/open-data/arctic/2021/dem.tif"


def test_a_pipe_is_no_data(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(Refused, match="neither a file nor a folder"):
        checked_uri(str(root / "pipe"))
