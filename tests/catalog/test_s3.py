"""Rasters and artifacts on an S3 service other than Amazon's, by the same three settings."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import rasterio

from thawloop.catalog.gdal import gdal_environment


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[list[tuple[str, str]]]:
    """A service with one object, `bucket/scene.tif`, and the requests that reached it: path and login."""
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="uint8"
    ) as raster:
        raster.write(np.full((1, 8, 8), 7, "uint8"))
    content = (tmp_path / "scene.tif").read_bytes()
    seen: list[tuple[str, str]] = []

    class Bucket(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            seen.append((self.path, self.headers.get("Authorization", "")))
            found = self.path == "/bucket/scene.tif"
            self.send_response((206 if "Range" in self.headers else 200) if found else 404)
            data = content if found else b""
            if found and "Range" in self.headers:
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                data = content[int(first) : int(last or len(content)) + 1]
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    settings.AWS_ENDPOINT_URL = url  # what the settings read from the environment
    settings.THAWLOOP_DATA_ROOTS = ["s3://bucket/"]
    yield seen
    server.shutdown()


def test_a_raster_is_read_with_the_key(service: list[tuple[str, str]]) -> None:
    with gdal_environment(), rasterio.open("/vsis3/bucket/scene.tif") as raster:
        assert (raster.read(1) == 7).all()
    assert ("/bucket/scene.tif", True) in {(path, "Credential=a-key/" in login) for path, login in service}


def test_an_artifact_is_read_with_the_key(service: list[tuple[str, str]]) -> None:
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    assert files.cat_file("bucket/scene.tif")[:2] in (b"II", b"MM")
    assert "Credential=a-key/" in service[-1][1]
