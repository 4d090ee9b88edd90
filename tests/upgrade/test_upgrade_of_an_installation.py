"""An installation of before, as `make demo` left it, is upgraded and is what it was.

`make_fixture.py` wrote it down, and what was true of it. Wherever it can be, that is asked for as people and programs
ask: through the API and commands.
"""

from typing import TYPE_CHECKING

import pytest

from tests.upgrade.additions import EDITORS_MAY, PEOPLE
from tests.upgrade.installation import ROOT, digests, expected, row_counts
from tests.upgrade.seen import client_of, differences, see

if TYPE_CHECKING:
    from tests.upgrade.conftest import Installation


def test_no_row_is_lost_and_none_is_added(upgraded: "Installation") -> None:
    assert differences(expected()["rows"], row_counts(upgraded.server, upgraded.database)) == []


def test_what_is_seen_of_it_is_what_it_was(seen: "Installation") -> None:
    assert differences(expected()["seen"], see(str(seen.root), called=ROOT)) == []


def test_the_audit_trail_still_leads_to_its_objects(seen: "Installation") -> None:
    from django.apps import apps

    from thawloop.core.models import AuditEntry

    entries = list(AuditEntry.objects.all())
    lost = [
        entry
        for entry in entries
        if not apps.get_model(entry.object_type)._default_manager.filter(pk=entry.object_id).exists()
    ]
    assert len(entries) == expected()["rows"]["auditentry"]
    assert lost == []


def test_content_types_and_permissions_are_of_models_that_exist(seen: "Installation") -> None:
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType

    assert [str(found) for found in ContentType.objects.all() if found.model_class() is None] == []
    assert Permission.objects.filter(codename__in=EDITORS_MAY).count() == len(EDITORS_MAY)  # none of an app of before


def test_everybody_may_do_what_they_might(used: "Installation") -> None:
    nobodys = "00000000-0000-0000-0000-000000000000"
    attempts = (
        ("patch", "/api/campaigns/demo/", {"title": "New"}),
        ("post", "/api/retrainings/", {}),
        ("post", f"/api/labels/{nobodys}/review/", {}),
    )

    def answers(name: str) -> list[int]:
        client = client_of(name)
        return [getattr(client, method)(address, data, "json").status_code for method, address, data in attempts]

    # 400: allowed, but it says nothing
    assert {name: answers(name) for name in PEOPLE} == {
        "anna": [403, 400, 403],  # annotators may not retrain, but she may
        "rita": [403, 403, 400],
        "lea": [200, 400, 400],
        "edgar": [200, 403, 403],  # by a group that is none of our roles
    }


@pytest.mark.parametrize("version", ["1.0.0", *(pytest.param(v, marks=pytest.mark.slow) for v in ("1.1.0", "1.2.0"))])
def test_a_release_of_before_is_made_again_with_the_same_files(used: "Installation", version: str) -> None:
    from thawloop.releases.models import Release
    from thawloop.releases.services import materialise, verify

    before = used.root / "before"
    (used.artifacts / "releases/demo" / version).rename(before)
    release = Release.objects.get(version=version)
    folder = materialise(release)
    assert verify(release) == []
    assert digests(before).items() <= digests(folder).items()  # chips were not kept, but the manifest was


def test_jobs_that_waited_are_done(used: "Installation") -> None:
    """A sync says that Label Studio is not there; one whose worker had died is put back."""
    from thawloop.core.jobs import reconcile_jobs, run_inline
    from thawloop.core.jobs.function import job_function
    from thawloop.core.models import Job

    waiting = list(Job.objects.filter(state="queued"))
    ended = {job.key.partition(":")[0]: run_inline(job.pk) for job in waiting}
    reconcile_jobs()

    assert {key: job.state for key, job in ended.items()} == {
        "consider": "succeeded",
        "events": "succeeded",
        "settle": "succeeded",
        "sync": "failed",
    }
    assert "Label Studio" in ended["sync"].error
    again = Job.objects.get(key__startswith="predict:", state__in=Job.ACTIVE)
    assert (again.state, again.attempt) == ("queued", 2)
    for function in Job.objects.values_list("function", flat=True).distinct():
        assert callable(job_function(function)), function  # or nobody could ask for it again
