"""Behind a proxy that ends TLS, at the root and below a path: links keep scheme and path of the outside."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import get_script_prefix, set_script_prefix

from thawloop.catalog.pictures import picture_url
from thawloop.core.models import Job

REPOSITORY = Path(__file__).resolve().parents[2]
OUTSIDE = {"HTTP_HOST": "map.example.org", "HTTP_X_FORWARDED_PROTO": "https", "HTTP_ORIGIN": "https://map.example.org"}


@pytest.fixture
def boss(db: None, settings: Any) -> User:
    settings.ALLOWED_HOSTS = ["map.example.org"]
    settings.THAWLOOP_URL = "https://map.example.org"
    return User.objects.create_superuser("boss", password="pw-for-tests")


def test_logging_in_needs_no_further_setting(boss: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.get("/login/", **OUTSIDE)
    form = {
        "username": "boss",
        "password": "pw-for-tests",
        "csrfmiddlewaretoken": client.cookies["thawloop_csrf"].value,
    }
    answer = client.post("/login/", form, HTTP_REFERER="https://map.example.org/login/", **OUTSIDE)
    assert (answer.status_code, answer["Location"]) == (302, "/")


def test_links_of_the_api_keep_https(boss: User) -> None:
    for number in range(4):
        Job.objects.create(function="thawloop.x", key=f"k{number}")
    client = Client()
    client.force_login(boss)
    page = client.get("/api/jobs/?page_size=2", **OUTSIDE).json()
    assert page["next"].startswith("https://map.example.org/api/jobs/")


def test_a_picture_has_one_address_in_workers_and_web_processes(settings: Any) -> None:
    settings.THAWLOOP_URL = "https://map.example.org/thaw"
    tile: Any = SimpleNamespace(key="g_c1_r1")
    modality: Any = SimpleNamespace(name="rgb")
    before = get_script_prefix()
    try:
        set_script_prefix("/")
        worker = picture_url(tile, modality)
        set_script_prefix("/thaw/")
        web = picture_url(tile, modality)
    finally:
        set_script_prefix(before)
    assert worker == web
    assert web.startswith("https://map.example.org/thaw/tiles/g_c1_r1/rgb.png?")


def test_below_a_path_every_link_has_the_path() -> None:
    script = (
        "import django; django.setup()\n"
        "from django.test import Client; from django.templatetags.static import static\n"
        "from django.urls import reverse\n"
        "page = Client().get('/', headers={'Host': 'localhost'})\n"
        "print(static('dashboard/style.css'), reverse('admin:index'), page['Location'])"
    )
    environment = {
        **os.environ,
        "THAWLOOP_URL": "http://localhost/thaw/",
        "DJANGO_SETTINGS_MODULE": "thawloop.settings",
    }
    path = os.pathsep.join([str(REPOSITORY / "platform"), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].split() == [
        "/thaw/static/dashboard/style.css",
        "/thaw/admin/",
        "/thaw/login/?next=/thaw/",
    ]
