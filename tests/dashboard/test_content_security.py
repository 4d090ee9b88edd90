"""Our pages in a real Chromium: the content security policy stops strangers' scripts and nothing of ours."""

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_pages_work_under_the_policy_and_strange_scripts_do_not(
    browser: "Browser", live_server: Any, campaign: Any, settings: Any
) -> None:
    settings.THAWLOOP_URL = live_server.url
    boss = Client()
    boss.force_login(User.objects.create_superuser("boss"))
    session = {"name": "thawloop_session", "value": boss.cookies["thawloop_session"].value, "url": live_server.url}
    context = browser.new_context()
    context.add_cookies([session])
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    pages = {
        "/": "h1",
        f"/campaigns/{campaign.name}/": "#map canvas",
        "/api/docs/": "#swagger-ui .opblock",
        "/admin/": "#content, main",
        "/admin/catalog/region/add/": "canvas",
        "/admin/campaigns/campaign/": "table",
        "/admin/core/job/": "main, #content",
    }
    for path, part in pages.items():
        page.goto(live_server.url + path)
        page.wait_for_selector(part, timeout=120_000)
        assert not [text for text in said if "Content Security Policy" in text or "unsafe-eval" in text], path
    page.goto(f"{live_server.url}/campaigns/{campaign.name}/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.stolen = 1\">')")
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), {textContent: 'stolen = 1'}))")
    page.wait_for_timeout(500)
    assert page.evaluate("window.stolen") is None
    context.close()


def test_nobody_frames_our_pages(client: Client) -> None:
    policy = client.get("/login/")["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]
