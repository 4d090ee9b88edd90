"""The admin's map in a real browser, which finds everything on our own server."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from shapely.geometry import box

from thawloop.catalog.services import define_region

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(live_server, browser):
    """A page of a lead who is logged in; requests to anywhere else, and errors in scripts, are collected."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("lead"))
    context = browser.new_context()
    context.add_cookies(
        [{"name": name, "value": morsel.value, "url": live_server.url} for name, morsel in client.cookies.items()]
    )
    page = context.new_page()
    page.trouble = []
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda r: page.trouble.append(r.url) if not r.url.startswith((live_server.url, "data:")) else 0)
    yield page
    context.close()


def test_a_region_is_shown_and_cannot_be_changed(page, live_server):
    region = define_region("shown", box(-136, 67, -134, 68))

    page.goto(f"{live_server.url}/admin/catalog/region/{region.pk}/change/")
    page.wait_for_selector("#shown_map_map canvas")

    drawn = page.evaluate("geodjango_shown_map.featureCollection.getLength()")
    interactions = page.evaluate(
        "geodjango_shown_map.map.getInteractions().getArray().filter("
        "i => i instanceof ol.interaction.Draw || i instanceof ol.interaction.Modify).length"
    )
    assert (drawn, interactions) == (1, 0)
    assert page.trouble == []


def test_a_region_is_drawn_with_the_mouse(page, live_server):
    page.goto(f"{live_server.url}/admin/catalog/region/add/")
    page.wait_for_selector("#id_geometry_map canvas")
    page.locator("#id_geometry_map").scroll_into_view_if_needed()
    frame = page.locator("#id_geometry_map").bounding_box()

    for x, y in ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6)):
        page.mouse.click(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
        page.wait_for_timeout(350)  # two quick clicks would be a zoom
    page.mouse.dblclick(frame["x"] + 0.4 * frame["width"], frame["y"] + 0.6 * frame["height"])

    page.wait_for_function("document.getElementById('id_geometry').value.includes('MultiPolygon')")
    assert page.trouble == []
