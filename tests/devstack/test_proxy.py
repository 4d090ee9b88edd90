"""docker/proxy/nginx.conf in a real nginx, in front of the real Label Studio and web pages."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack.labelstudio import LabelStudioServer
from devstack.ports import free_port
from devstack.stack import LocalStack
from devstack.supervisor import Process

REPOSITORY = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
pytestmark = [
    pytest.mark.labelstudio,
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, LabelStudioServer]]:
    """The address of the proxy, and Label Studio behind it."""
    port, web = free_port(), free_port()
    folder = tmp_path_factory.mktemp("proxy")
    with LocalStack(folder / "stack", durable=False) as stack:
        labelstudio = stack.start_labelstudio(public_url=f"http://127.0.0.1:{port}/label-studio")
        (folder / "nginx.conf").write_text(configuration(folder, port, web, labelstudio))
        gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:thawloop.serving.web"]
        gunicorn += ["--bind", f"127.0.0.1:{web}"]
        stack.supervise(
            [
                Process("web", gunicorn, cwd=REPOSITORY),
                Process("nginx", [str(NGINX), "-c", str(folder / "nginx.conf")]),
            ]
        )
        wait_for(f"http://127.0.0.1:{port}/healthz")
        yield f"http://127.0.0.1:{port}", labelstudio


def configuration(folder: Path, port: int, web: int, labelstudio: LabelStudioServer) -> str:
    server = (REPOSITORY / "docker/proxy/nginx.conf").read_text()
    server = server.replace("listen 8080", f"listen 127.0.0.1:{port}")
    server = server.replace("http://web:8000", f"http://127.0.0.1:{web}")
    server = server.replace("http://label-studio:8080", labelstudio.url)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    return (
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ include /etc/nginx/mime.types; access_log off; {folders}\n{server}}}"
    )


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(url)


def test_web_pages_are_at_the_root(site: tuple[str, LabelStudioServer]) -> None:
    assert httpx.get(f"{site[0]}/admin/login/", timeout=60).status_code == 200


def test_label_studio_works_below_its_path(site: tuple[str, LabelStudioServer]) -> None:
    url, labelstudio = site
    with httpx.Client(base_url=url, timeout=60, follow_redirects=True) as browser:
        login = browser.get("/label-studio")
        assert login.url.path == "/label-studio/user/login/"
        form = {"email": labelstudio.username, "password": labelstudio.password}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        page = browser.post(str(login.url), data=form, headers={"Origin": url, "Referer": str(login.url)})
        assert page.url.path.startswith("/label-studio/")
        files = [address for address in re.findall(r'(?:src|href)="([^"]+)"', page.text) if address.startswith(url)]
        assert files
        assert {address: browser.get(address).status_code for address in files} == dict.fromkeys(files, 200)
        assert browser.get("/label-studio/api/projects/").status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/hooks/labelstudio/x", "/label-studio/heidi-tips/", "/heidi-tips"])
def test_what_is_not_for_the_public_is_not_there(site: tuple[str, LabelStudioServer], path: str) -> None:
    assert httpx.get(site[0] + path, timeout=60).status_code == 404


def test_the_platform_reaches_label_studio_directly_without_the_path(site: tuple[str, LabelStudioServer]) -> None:
    labelstudio = site[1]
    headers = {"Authorization": f"Token {labelstudio.token}"}
    assert httpx.get(f"{labelstudio.url}/api/projects/", headers=headers, timeout=60).status_code == 200
