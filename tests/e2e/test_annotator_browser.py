"""An annotator at work: a real browser, a real Label Studio, our web server, our ML backend, real pictures."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import numpy as np
import pytest
import rasterio
from django.core.cache import cache
from playwright.sync_api import Page, expect
from rasterio.transform import from_origin

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120

pytestmark = [
    pytest.mark.browser,
    pytest.mark.labelstudio,
    pytest.mark.django_db(transaction=True),
]


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)
    return found


@pytest.fixture
def site(labelstudio, live_server, settings, tmp_path) -> Any:
    """A campaign on generated rasters whose pictures, webhooks and predictions really work."""
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_URL = settings.THAWLOOP_CALLBACK_URL = live_server.url
    settings.THAWLOOP_WEBHOOK_SECRET = "a-long-secret"
    settings.THAWLOOP_DATA_ROOTS = [str(tmp_path)]
    settings.ML_BACKEND_URL = "http://127.0.0.1:9"  # a test that wants one starts it
    cache.clear()
    from tests.labeling.build import build_campaign
    from thawloop.catalog.services import register_scene

    campaign = build_campaign()
    for row in campaign.campaign_modalities.select_related("modality"):
        path = tmp_path / f"{row.modality.name}.tif"
        _draw_raster(path, campaign, bands=len(row.modality.bands))
        register_scene(str(path), modality=row.modality, acquired=date(2021, 7, 15))
    return campaign


def _draw_raster(path: Path, campaign: Any, bands: int) -> None:
    """A raster over all tiles of the campaign, with something to see in it."""
    side = 4 * campaign.grid.tile_size
    pixel = campaign.grid.pixel_size
    step = campaign.grid.tile_size * pixel
    rows, columns = np.indices((side, side)) / side
    picture = np.stack([(rows + band * columns) / (1 + band) for band in range(bands)]).astype("float32")
    profile = {"driver": "GTiff", "dtype": "float32", "count": bands, "width": side, "height": side}
    transform = from_origin(-5500 * step, (-1000 + 4) * step, pixel, pixel)
    with rasterio.open(path, "w", **profile, crs="EPSG:3413", transform=transform) as raster:
        raster.write(picture)


@pytest.fixture
def annotator(labelstudio, browser) -> Page:
    """A browser that is logged in to Label Studio."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    page.goto(f"{labelstudio.url}/user/login/")
    page.fill("input[name=email]", labelstudio.username)
    page.fill("input[name=password]", labelstudio.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)
    return page


@pytest.fixture
def ml_backend(site, settings) -> Iterator[str]:
    """Our ML backend as its own process, on the test's database."""
    from django.db import connection

    from devstack.ports import free_port

    port = free_port()
    parts = urlsplit(os.environ["DATABASE_URL"])
    environment = os.environ | {
        "DATABASE_URL": urlunsplit(parts._replace(path=f"/{connection.settings_dict['NAME']}")),
        "THAWLOOP_WEBHOOK_SECRET": settings.THAWLOOP_WEBHOOK_SECRET,
    }
    command = [sys.executable, "-m", "ml_backend.server", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
    settings.ML_BACKEND_URL = url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or _is_up(url), "the ML backend to come up")
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def work_off_jobs() -> None:
    """Do what a worker would do, here."""
    from thawloop.core.jobs import run_inline
    from thawloop.core.models import Job

    for job in Job.objects.filter(state=Job.State.QUEUED, function="labeling.labelstudio.jobs.process_events"):
        assert run_inline(job.pk).state == Job.State.SUCCEEDED


def open_task(page: Page, url: str, task: Any) -> None:
    """Open a task as the link in the Data Manager does, and wait until its pictures are drawn."""
    page.goto(f"{url}/projects/{task.campaign.ls_project_id}/data?task={task.ls_task_id}")
    page.get_by_role("button", name="Submit").wait_for()
    page.wait_for_function(
        "() => [...document.images].filter(i => i.complete && i.naturalWidth === 512).length >= 2",
    )


def test_pictures_are_served_to_browsers_that_are_not_logged_in_here(site):
    from thawloop.catalog.models import Modality, Tile
    from thawloop.catalog.pictures import picture_url

    tile = Tile.objects.first()
    for modality in Modality.objects.all():
        answer = httpx.get(picture_url(tile, modality))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
        assert answer.headers["access-control-allow-origin"] == "*"


def test_a_submission_in_the_browser_becomes_a_label_through_the_webhook(site, annotator, labelstudio, tmp_path):
    from labeling.labelstudio.push import push_tasks
    from labeling.labelstudio.sync import sync
    from labeling.models import Annotation, WebhookEvent
    from labeling.selectors import current_labels
    from tests.labeling.build import build_champion, build_prediction, build_tasks
    from thawloop.core.models import AuditEntry

    task, other = build_tasks(site, 2)
    champion = build_champion(site)
    build_prediction(task.tile, champion)
    build_prediction(other.tile, champion, instances=[])
    push_tasks(site)
    task.refresh_from_db()
    open_task(annotator, labelstudio.url, task)
    # The pre-annotations are there: two regions, one polygon and one brush mask with a hole.
    expect(annotator.locator(".lsf-outliner-item").filter(has_text="RTS")).to_have_count(2)
    annotator.screenshot(path=os.environ.get("THAWLOOP_SCREENSHOT", tmp_path / "labelstudio.png"))
    annotator.get_by_role("button", name="Submit").click()
    until(WebhookEvent.objects.exists, "Label Studio's webhook")
    work_off_jobs()
    annotation = Annotation.objects.get()
    assert WebhookEvent.objects.get().error == ""
    assert (annotation.task, annotation.kind, annotation.problems) == (task, "submitted", [])
    assert annotation.annotator_name == labelstudio.username
    assert annotation.prediction.model_version == champion
    assert annotation.correction_iou == pytest.approx(1.0, abs=0.01)
    assert annotation.lead_time > 0
    labels = current_labels(site)
    assert {label.label.tile for label in labels} == {task.tile}
    assert sorted(len(label.geometry[0]) for label in labels) == [1, 2]  # rings: one label has a hole
    assert AuditEntry.objects.filter(action="labeling.record_annotation").count() == 1

    # Our web server is away: the annotator does not notice, and the sync finds what was submitted.
    _point_webhook_nowhere(site)
    other.refresh_from_db()
    open_task(annotator, labelstudio.url, other)
    with annotator.expect_response(lambda answer: answer.request.method == "POST" and "/annotations" in answer.url):
        annotator.get_by_role("button", name="Submit").click()
    assert WebhookEvent.objects.count() == 1
    assert sync(site).recorded == 1
    other.refresh_from_db()
    assert other.state == "submitted"


def _point_webhook_nowhere(campaign: Any) -> None:
    from labeling.labelstudio.client import Client
    from labeling.labelstudio.projects import WEBHOOK_ACTIONS

    with Client() as client:
        (hook,) = client.webhooks(campaign.ls_project_id)
        fields = {"url": "http://127.0.0.1:9/nobody", "actions": WEBHOOK_ACTIONS}
        client.change_webhook(hook["id"], fields)


def test_deleting_and_skipping_in_label_studio_reach_us_as_webhooks(site):
    from labeling.labelstudio.client import Client
    from labeling.labelstudio.push import push_tasks
    from labeling.models import AnnotationTask, WebhookEvent
    from labeling.selectors import current_labels
    from tests.labeling.build import SQUARE, build_tasks, polygon

    first, second = build_tasks(site, 2)
    push_tasks(site)
    first.refresh_from_db()
    second.refresh_from_db()
    with Client() as client:
        body = {"result": [polygon(SQUARE)], "lead_time": 2}
        made = client._object("POST", f"/api/tasks/{first.ls_task_id}/annotations/", content=body)
        skipped = body | {"was_cancelled": True}
        client._object("POST", f"/api/tasks/{second.ls_task_id}/annotations/", content=skipped)
        work_off_jobs()
        assert current_labels(site).count() == 1
        assert AnnotationTask.objects.get(pk=second.pk).state == "skipped"
        client._call("DELETE", f"/api/annotations/{made['id']}/")
        work_off_jobs()
        assert not current_labels(site).exists()
        client.delete_task(second.ls_task_id)
        work_off_jobs()
    assert WebhookEvent.objects.exclude(error="").count() == 0
    assert AnnotationTask.objects.get(pk=second.pk).state == "withdrawn"


def test_label_studio_takes_predictions_from_our_ml_backend(site, ml_backend):
    from labeling.labelstudio.client import Client
    from labeling.labelstudio.projects import ensure_project
    from tests.labeling.build import build_champion, build_prediction, build_tasks

    (task,) = build_tasks(site, 1)
    champion = build_champion(site)
    build_prediction(task.tile, champion)
    project = ensure_project(site)
    data = {"picture_rgb": "x", "picture_ndvi": "x", "platform_task_uuid": str(task.pk)}
    with Client() as client:
        (backend,) = client.ml_backends(project)
        assert (backend["title"], backend["readable_state"]) == ("ThawLoop", "Connected")
        assert not [hook for hook in client.webhooks(project) if hook["url"].startswith(ml_backend)]
        ids = client.import_tasks(project, [{"data": data}, {"data": data | {"platform_task_uuid": "a stranger's"}}])
        ours, strange = (client._object("GET", f"/api/tasks/{identifier}/") for identifier in ids["task_ids"])
    (prediction,) = ours["predictions"]
    assert prediction["model_version"] == "peel-v1"
    assert [region["type"] for region in prediction["result"]] == ["polygonlabels", "brushlabels"]
    assert [prediction["result"] for prediction in strange["predictions"]] in ([], [[]])


def test_rotated_secrets_reach_label_studio_and_what_was_missed_meanwhile_is_found(site, ml_backend):
    from django.core.management import call_command

    from labeling.labelstudio.client import Client
    from labeling.labelstudio.projects import SECRET_HEADER
    from labeling.labelstudio.push import push_tasks
    from labeling.labelstudio.secrets import ml_backend_secret, rotate_secrets, webhook_secret
    from labeling.labelstudio.sync import sync
    from labeling.models import Annotation
    from tests.labeling.build import SQUARE, build_champion, build_prediction, build_tasks, polygon

    first, second = build_tasks(site, 2)
    champion = build_champion(site)
    build_prediction(second.tile, champion)
    site.tasks.filter(pk=second.pk).update(state="withdrawn")
    push_tasks(site)
    first.refresh_from_db()
    site.refresh_from_db()
    before = {webhook_secret(), ml_backend_secret()}
    with Client() as client:
        rotate_secrets("as if the command had been killed here")
        body = {"result": [polygon(SQUARE)], "lead_time": 2}
        client._object("POST", f"/api/tasks/{first.ls_task_id}/annotations/", content=body)
        assert not Annotation.objects.exists()  # its webhook still brought the old secret
        assert sync(site).recorded == 1  # and told Label Studio the new ones
        call_command("rotate_secrets", reason="somebody left")
        assert not before & {webhook_secret(), ml_backend_secret()}
        (hook,) = client.webhooks(site.ls_project_id)
        assert hook["headers"] == {SECRET_HEADER: webhook_secret()}
        data = {"picture_rgb": "x", "picture_ndvi": "x", "platform_task_uuid": str(second.pk)}
        (number,) = client.import_tasks(site.ls_project_id, [{"data": data}])["task_ids"]
        (prediction,) = client.task(number)["predictions"]  # Label Studio logs in to the ML backend
    assert [region["type"] for region in prediction["result"]] == ["polygonlabels", "brushlabels"]


def test_an_annotator_sees_above_the_pictures_what_was_not_understood(site, annotator, labelstudio):
    from labeling.labelstudio.client import Client
    from labeling.labelstudio.push import push_tasks
    from labeling.labelstudio.sync import sync
    from tests.labeling.build import build_tasks, polygon

    wrong, fine = build_tasks(site, 2)
    push_tasks(site)
    for task in (wrong, fine):
        task.refresh_from_db()
    with Client() as client:
        eight = polygon([(10, 10), (50, 50), (50, 10), (10, 50)])
        client._object("POST", f"/api/tasks/{wrong.ls_task_id}/annotations/", content={"result": [eight]})
    sync(site)
    address = f"{labelstudio.url}/projects/{site.ls_project_id}/data?task="
    annotator.goto(f"{address}{wrong.ls_task_id}")
    told = annotator.get_by_role("heading", name="its outline crosses itself")
    expect(told).to_be_visible(timeout=PATIENCE_SECONDS * 1000)
    annotator.goto(f"{address}{fine.ls_task_id}")
    annotator.get_by_role("button", name="Submit").wait_for()
    expect(annotator.get_by_role("heading", name="does not count yet")).to_have_count(0)
    expect(annotator.get_by_role("heading", name="thawloop_note")).to_have_count(0)
