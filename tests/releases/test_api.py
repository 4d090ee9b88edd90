"""Releases over HTTP."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, User
from django.test import override_settings
from django.urls import include, path
from rest_framework.routers import DefaultRouter
from rest_framework.test import APIClient

from tests.releases.site import Site
from thawloop.campaigns.models import Campaign
from thawloop.core.models import Job
from thawloop.releases.api import ReleaseViewSet
from thawloop.releases.models import Release
from thawloop.releases.services import freeze_release, import_labels, materialise

Write = Callable[..., Path]

router = DefaultRouter()
router.register("releases", ReleaseViewSet)
urlpatterns = [path("api/", include(router.urls))]
pytestmark = pytest.mark.urls(__name__)


def client(role: str) -> APIClient:
    """Somebody of a role."""
    user = User.objects.create_user(role)
    user.groups.add(Group.objects.get(name=role))
    found = APIClient()
    found.force_authenticate(user)
    return found


@pytest.fixture
def covered(campaign: Campaign, site: Site, label_file: Write) -> Campaign:
    """Every tile is covered by an import of two labels."""
    import_labels(campaign, label_file(site.square(0, 0), site.square(5, 0)), coverage=site.block(0, 0, 9, 3))
    return campaign


def test_lead_freezes_and_sees_a_conflict_the_second_time(covered: Campaign) -> None:
    lead = client("lead")

    created = lead.post("/api/releases/", {"campaign": "site", "notes": "n"}, format="json")

    assert created.status_code == 201, created.content
    assert created.json()["version"] == "1.0.0"
    assert Release.objects.get().created_by.username == "lead"
    again = lead.post("/api/releases/", {"campaign": "site"}, format="json")
    assert (again.status_code, "Nothing was labelled" in again.json()["detail"]) == (409, True)


def test_refusal_is_400_and_strangers_are_kept_out(campaign: Campaign) -> None:
    assert client("lead").post("/api/releases/", {"campaign": "site"}, format="json").status_code == 400
    assert client("annotator").post("/api/releases/", {"campaign": "site"}, format="json").status_code == 403
    assert APIClient().get("/api/releases/").status_code == 401


def test_files_are_written_by_a_job(covered: Campaign) -> None:
    release = freeze_release(covered)

    answer = client("lead").post(f"/api/releases/{release.pk}/materialise/")

    assert answer.status_code == 202
    job = Job.objects.get(pk=answer.json()["job"])
    assert (job.queue, job.args) == ("raster", {"release": release.pk})


def test_exports_are_downloaded(covered: Campaign) -> None:
    release = freeze_release(covered)
    annotator = client("annotator")

    labels = annotator.get(f"/api/releases/{release.pk}/export/geojson/")
    assert labels.status_code == 200
    assert b"FeatureCollection" in b"".join(labels.streaming_content)
    assert labels["Content-Disposition"] == 'attachment; filename="site-1.0.0.geojson"'
    assert annotator.get(f"/api/releases/{release.pk}/export/dataset/").status_code == 409
    materialise(release)
    archive = annotator.get(f"/api/releases/{release.pk}/export/dataset/")
    assert b"".join(archive.streaming_content).startswith(b"PK")
    assert archive["Content-Disposition"] == 'attachment; filename="site-1.0.0.zip"'
    assert annotator.get(f"/api/releases/{release.pk}/export/shp/").status_code == 400
    assert annotator.get(f"/api/releases/{release.pk}/verify/").json() == {"problems": []}


def test_diff_needs_the_other_release(covered: Campaign) -> None:
    release = freeze_release(covered)
    lead = client("lead")

    assert lead.get(f"/api/releases/{release.pk}/diff/?with={release.pk}").json()["labels"]["added"]["count"] == 0
    assert lead.get(f"/api/releases/{release.pk}/diff/").status_code == 400
    assert lead.get(f"/api/releases/{release.pk}/diff/?with=999999").status_code == 404


def test_listing_takes_a_fixed_number_of_queries(covered: Campaign, django_assert_max_num_queries: Callable) -> None:
    release = freeze_release(covered)
    for number in range(1, 6):
        Release.objects.create(campaign=covered, version=f"1.0.{number}", definition=release.definition)
    lead = client("lead")
    with override_settings(DEBUG=False), django_assert_max_num_queries(6):
        assert len(lead.get("/api/releases/").json()["results"]) == 6
