"""Jobs and the audit trail in the admin."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from thawloop.core.models import AuditEntry, Job
from thawloop.core.services import audit

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def test_jobs_are_listed_shown_cancelled_and_retried(boss: Client) -> None:
    job = Job.objects.create(function="thawloop.training.jobs.consider", key="a-key", progress=0.25)
    listed = boss.get(reverse("admin:core_job_changelist"))
    assert b"a-key" in listed.content
    assert b'value="0.250"' in listed.content
    assert boss.get(reverse("admin:core_job_change", args=[job.pk])).status_code == 200
    chosen = {"_selected_action": [str(job.pk)]}
    boss.post(reverse("admin:core_job_changelist"), {"action": "cancel", **chosen})
    job.refresh_from_db()
    assert job.state == "cancelled"
    boss.post(reverse("admin:core_job_changelist"), {"action": "retry", **chosen})
    assert Job.objects.filter(key="a-key", state="queued").count() == 1


def test_a_refused_action_is_said_in_the_page(boss: Client) -> None:
    job = Job.objects.create(function="thawloop.x", key="k", state=Job.State.SUCCEEDED)
    page = boss.post(
        reverse("admin:core_job_changelist"), {"action": "cancel", "_selected_action": [str(job.pk)]}, follow=True
    )
    assert "has succeeded already" in page.content.decode()


def test_nothing_can_be_added_edited_or_deleted(boss: Client) -> None:
    job = Job.objects.create(function="thawloop.x", key="k")
    entry = audit("core.test", job)
    for model, row in (("job", job), ("auditentry", entry)):
        assert boss.get(reverse(f"admin:core_{model}_add")).status_code == 403
        assert boss.post(reverse(f"admin:core_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    boss.post(reverse("admin:core_job_change", args=[job.pk]), {"state": "succeeded", "key": "other"})
    job.refresh_from_db()
    assert (job.state, job.key) == ("queued", "k")
    assert AuditEntry.objects.filter(pk=entry.pk).exists()


def test_markup_in_a_message_is_shown_as_text(boss: Client) -> None:
    Job.objects.create(function="thawloop.x", key="k", progress_message="<script>alert(1)</script>")
    assert b"<script>alert(1)" not in boss.get(reverse("admin:core_job_changelist")).content
