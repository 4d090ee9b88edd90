"""Jobs and the audit trail over HTTP. The views are called through a router of their own."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import override_settings
from django.urls import include, path
from rest_framework.routers import DefaultRouter
from rest_framework.test import APIClient

from thawloop.core.api import AuditEntryViewSet, JobViewSet
from thawloop.core.models import AuditEntry, Job

router = DefaultRouter()
router.register("jobs", JobViewSet)
router.register("audit", AuditEntryViewSet)
urlpatterns = [path("api/", include(router.urls))]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture
def lead(member: Callable[[str], User], client_of: Callable[[User], APIClient]) -> APIClient:
    return client_of(member("lead"))


@pytest.fixture
def annotator(member: Callable[[str], User], client_of: Callable[[User], APIClient]) -> APIClient:
    return client_of(member("annotator"))


def job(key: str = "k", **fields) -> Job:
    return Job.objects.create(function="thawloop.training.jobs.consider", key=key, **fields)


def test_jobs_are_listed_newest_first_and_filtered(annotator: APIClient) -> None:
    keys = [job(f"k{number}", queue="gpu" if number % 2 else "default").key for number in range(5)]
    found = annotator.get("/api/jobs/").json()["results"]
    assert [row["key"] for row in found] == keys[::-1]
    assert [row["key"] for row in annotator.get("/api/jobs/?queue=gpu").json()["results"]] == ["k3", "k1"]
    assert "lease_token" not in found[0]


def test_pages_of_jobs_join_without_gaps(annotator: APIClient) -> None:
    expected = [job(f"k{number}").key for number in range(7)][::-1]
    seen, address = [], "/api/jobs/?page_size=3"
    while address:
        page = annotator.get(address).json()
        seen += [row["key"] for row in page["results"]]
        address = page["next"]
    assert seen == expected


def test_a_list_of_jobs_costs_the_same_however_long(annotator: APIClient, django_assert_num_queries) -> None:
    user = User.objects.create_user("ada")
    for number in range(20):
        job(f"k{number}", requested_by=user)
    with django_assert_num_queries(3):  # two of them for permissions
        annotator.get("/api/jobs/")


def test_a_lead_cancels_and_retries(lead: APIClient) -> None:
    queued = job()
    answer = lead.post(f"/api/jobs/{queued.pk}/cancel/", {"reason": "wrong region"})
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert AuditEntry.objects.get(action="core.cancel_job").reason == "wrong region"
    again = lead.post(f"/api/jobs/{queued.pk}/retry/")
    assert again.status_code == 201
    assert again.json()["id"] != str(queued.pk)


def test_what_cannot_be_done_now_is_a_conflict_with_a_sentence(lead: APIClient) -> None:
    done = job(state=Job.State.SUCCEEDED)
    answer = lead.post(f"/api/jobs/{done.pk}/cancel/")
    assert answer.status_code == 409
    assert "has succeeded already" in answer.json()["detail"]


def test_an_annotator_sees_jobs_but_does_not_touch_them(annotator: APIClient) -> None:
    queued = job()
    assert annotator.get(f"/api/jobs/{queued.pk}/").status_code == 200
    assert annotator.post(f"/api/jobs/{queued.pk}/cancel/").status_code == 403
    assert annotator.delete(f"/api/jobs/{queued.pk}/").status_code == 403
    queued.refresh_from_db()
    assert queued.state == "queued"


def test_strangers_see_nothing() -> None:
    assert APIClient().get("/api/jobs/").status_code == 401
    assert APIClient().get("/api/audit/").status_code == 401


def test_the_audit_trail_is_for_leads_and_only_to_read(lead: APIClient, annotator: APIClient) -> None:
    lead.post(f"/api/jobs/{job().pk}/cancel/")
    entries = lead.get("/api/audit/?action=core.cancel_job").json()["results"]
    assert [entry["object_type"] for entry in entries] == ["core.job"]
    assert annotator.get("/api/audit/").status_code == 403
    with override_settings():
        assert lead.post("/api/audit/", {}).status_code in (403, 405)


def test_a_retry_needs_no_more_than_the_reason_it_allows(lead: APIClient) -> None:
    answer = lead.post(f"/api/jobs/{job().pk}/cancel/", {"reason": "x" * 1001})
    assert answer.status_code == 400
    assert "reason" in answer.json()


@pytest.mark.parametrize("cursor", ["cD1hYmM=", "cD0lMDA=", "nonsense"])
def test_a_cursor_that_was_made_up_is_not_found(annotator: APIClient, cursor: str) -> None:
    job()
    assert annotator.get(f"/api/jobs/?cursor={cursor}").status_code == 404
