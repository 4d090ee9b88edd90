"""docker/proxy/nginx.conf in a real nginx, in front of servers of the test that say what reached them."""

import json
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from devstack.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
SECONDS = 120


class Mirror(BaseHTTPRequestHandler):
    """Answers with where it is, what was asked and with which headers."""

    def do_GET(self) -> None:
        address = self.connection.getsockname()[0]
        body = json.dumps({"address": address, "path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Names:
    """A DNS server that answers every question with one address, which can change."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(512)
            is_v4 = question[12:].partition(b"\0")[2][:2] == b"\0\1"
            head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_v4 else b"\0\0") + b"\0\0\0\0"
            answer = b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 1, 4) + socket.inet_aton(self.address)
            self._socket.sendto(head + question[12:] + (answer if is_v4 else b""), asker)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Names]]:
    """The proxy's address, and the names it looks up."""
    folder = tmp_path_factory.mktemp("nginx")
    port, backend = free_port(), free_port()
    mirrors = [ThreadingHTTPServer((f"127.0.0.{host}", backend), Mirror) for host in (2, 3)]
    for mirror in mirrors:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
    names = Names("127.0.0.2")
    text = (REPOSITORY / "docker/proxy/nginx.conf").read_text()
    for old, new in {
        "listen 8080": f"listen 127.0.0.1:{port}",
        "resolver 127.0.0.11 valid=10s": f"resolver 127.0.0.1:{names.port} valid=1s",
        "http://web:8000": f"http://web:{backend}",
        "http://label-studio:8080": f"http://label-studio:{backend}",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}"
    (folder / "nginx.conf").write_text(f"{main}\nhttp {{ access_log off; {folders}\n{text}}}")
    server = subprocess.Popen([str(NGINX), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + SECONDS
    while True:
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        try:
            httpx.get(url, timeout=SECONDS)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield url, names
    server.terminate()
    server.wait()
    for mirror in mirrors:
        mirror.shutdown()


def test_tls_in_front_makes_links_https_and_the_first_address_is_whose_it_is(proxy: tuple[str, Names]) -> None:
    outside = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9, 192.168.1.1", "Host": "map.example.org"}
    seen = httpx.get(f"{proxy[0]}/api/jobs/", headers=outside, timeout=SECONDS).json()
    assert (seen["x-forwarded-proto"], seen["x-forwarded-for"]) == ("https", "203.0.113.9")
    assert seen["host"] == "map.example.org"
    plain = httpx.get(f"{proxy[0]}/", timeout=SECONDS).json()
    assert (plain["x-forwarded-proto"], plain["x-forwarded-for"]) == ("http", "127.0.0.1")
    odd = httpx.get(f"{proxy[0]}/", headers={"X-Forwarded-Proto": "javascript"}, timeout=SECONDS).json()
    assert odd["x-forwarded-proto"] == "http"


def test_label_studio_is_asked_without_its_prefix(proxy: tuple[str, Names]) -> None:
    for path in ("/", "/api/tasks?page=1&q=a%20b", "/projects/1/data"):
        assert httpx.get(f"{proxy[0]}/label-studio{path}", timeout=SECONDS).json()["path"] == path
    assert httpx.get(f"{proxy[0]}/label-studio/heidi-tips/", timeout=SECONDS).status_code == 404


def test_a_container_that_got_another_address_is_found_again(proxy: tuple[str, Names]) -> None:
    url, names = proxy
    names.address = "127.0.0.3"
    deadline = time.monotonic() + SECONDS
    while (seen := httpx.get(f"{url}/healthz", timeout=SECONDS).json()["address"]) != "127.0.0.3":
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
