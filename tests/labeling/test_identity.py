"""With a real Label Studio: numbers that mean something else, lost projects, and deletions that ask a lead first."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.labelstudio import pull
from labeling.labelstudio.client import Client
from labeling.labelstudio.errors import ExchangeStopped, ForeignProject, RemovalsUnconfirmed
from labeling.labelstudio.health import check_exchange
from labeling.labelstudio.preannotations import refresh_preannotations
from labeling.labelstudio.projects import ensure_project
from labeling.labelstudio.pull import Pull, SyncReport
from labeling.labelstudio.push import push_tasks
from labeling.labelstudio.submissions import record_payload
from labeling.labelstudio.sync import new_project, sync
from labeling.models import Annotation, AnnotationTask
from labeling.selectors import current_labels, labelled_tiles
from labeling.services.annotations import record_deletion
from tests.labeling.build import RING, SQUARE, annotation, build_tasks, polygon
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Conflict
from thawloop.core.models import AuditEntry

EIGHT = polygon([(10, 10), (50, 50), (50, 10), (10, 50)], "eight")


@pytest.fixture
def client(labelstudio, settings) -> Iterator[Client]:
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_WEBHOOK_SECRET = "a-long-secret"
    settings.ML_BACKEND_URL = "http://127.0.0.1:9"  # nobody there
    cache.clear()
    with Client() as client:
        yield client


@pytest.fixture
def worked(campaign: Any, client: Client) -> list[AnnotationTask]:
    """Six tasks: four annotated, one that was not understood, one open; all known."""
    build_tasks(campaign, 6)
    push_tasks(campaign)
    tasks = list(campaign.tasks.order_by("rank"))
    for task in tasks[:4]:
        submit(client, task, polygon(SQUARE))
    submit(client, tasks[4], EIGHT)
    assert sync(campaign).recorded == 5
    return list(campaign.tasks.order_by("rank"))


def submit(client: Client, task: AnnotationTask, *regions: Any, **changes: Any) -> int:
    body = {"result": list(regions), "lead_time": 3.5} | changes
    return int(client._object("POST", f"/api/tasks/{task.ls_task_id}/annotations/", content=body)["id"])


def states(campaign: Any) -> list[str]:
    return list(campaign.tasks.order_by("rank").values_list("state", flat=True))


def nothing_was_taken_back(campaign: Any) -> None:
    assert states(campaign) == ["submitted"] * 4 + ["returned", "open"]
    assert current_labels(campaign).count() == 4
    assert not Annotation.objects.filter(kind="deleted").exists()


def point_to_strangers_project(campaign: Any, client: Client) -> int:
    """Our number is somebody else's: what a Label Studio that counts from 1 again, or another server, looks like."""
    stranger = client.create_project({"title": "cats and dogs", "label_config": "<View></View>"})["id"]
    Campaign.objects.filter(pk=campaign.pk).update(ls_project_id=stranger)
    campaign.refresh_from_db()
    cache.clear()
    return int(stranger)


def goes_on_in_a_new_project(campaign: Any, client: Client) -> None:
    """What waited, or has to be corrected, is given to annotators again; numbers of before mean nothing there."""
    assert new_project(campaign) == 2
    assert states(campaign) == ["submitted"] * 4 + ["pending"] * 2
    assert sync(campaign, full=True).pushed == 2
    campaign.refresh_from_db()
    assert (campaign.ls_generation, campaign.ls_stopped) == (1, "")
    assert current_labels(campaign).count() == 4
    assert len(list(client.tasks(campaign.ls_project_id))) == 2
    again = campaign.tasks.order_by("rank")[4]
    submit(client, again, polygon(RING))
    assert sync(campaign).recorded == 1
    assert current_labels(campaign).count() == 5
    assert not sync(campaign, full=True)


@pytest.mark.labelstudio
@pytest.mark.django_db
class TestWhoseProject:
    """A project is the campaign's only if it holds its mark."""

    def test_somebody_elses_project_takes_no_labels_away_and_is_not_written_to(self, worked, campaign, client):
        stranger = point_to_strangers_project(campaign, client)
        for exchange in (lambda: sync(campaign, full=True), lambda: push_tasks(campaign), lambda: sync(campaign)):
            with pytest.raises(ForeignProject, match="does not hold the mark"):
                exchange()
        for exchange in (ensure_project, refresh_preannotations):
            with pytest.raises(ForeignProject):
                exchange(campaign)
        nothing_was_taken_back(campaign)
        found = client.project(stranger)
        assert (found["title"], found["label_config"], found["task_number"]) == ("cats and dogs", "<View></View>", 0)
        assert client.webhooks(stranger) == []

    def test_leads_see_why_it_stopped_and_it_goes_on_by_itself_when_the_project_is_there_again(
        self, worked, campaign, client, admin_client
    ):
        ours = campaign.ls_project_id
        point_to_strangers_project(campaign, client)
        with pytest.raises(ForeignProject):
            sync(campaign)
        with pytest.raises(ExchangeStopped, match="does not hold the mark"):
            check_exchange()
        assert "does not hold the mark" in admin_client.get("/api/campaigns/peel/").json()["ls_stopped"]
        page = admin_client.get("/campaigns/peel/panels/queue/").content.decode()
        assert "does not hold the mark" in page
        assert "Go on in a new project" in page
        Campaign.objects.filter(pk=campaign.pk).update(ls_project_id=ours)
        campaign.refresh_from_db()
        sync(campaign)
        nothing_was_taken_back(campaign)
        assert check_exchange() == "1 campaigns"
        actions = (
            AuditEntry.objects.filter(action__endswith="_exchange").order_by("id").values_list("action", flat=True)
        )
        assert list(actions) == ["labeling.stop_exchange", "labeling.resume_exchange"]

    def test_a_new_project_is_made_when_the_number_is_somebody_elses(self, worked, campaign, client):
        point_to_strangers_project(campaign, client)
        goes_on_in_a_new_project(campaign, client)

    def test_a_new_project_is_made_when_label_studio_lost_its_database(self, worked, campaign, client):
        client._call("DELETE", f"/api/projects/{campaign.ls_project_id}/")
        with pytest.raises(ExchangeStopped, match="--new-project"):
            sync(campaign)
        goes_on_in_a_new_project(campaign, client)

    def test_people_are_named_by_the_server_that_they_work_on(self, campaign, client, labelstudio, monkeypatch):
        build_tasks(campaign, 2)
        push_tasks(campaign)
        with monkeypatch.context() as another_server:
            another_server.setattr(Client, "people", lambda self: dict.fromkeys(range(1, 100), "else@example.org"))
            submit(client, campaign.tasks.get(rank=0), polygon(SQUARE))
            sync(campaign)
        client._call("DELETE", f"/api/projects/{campaign.ls_project_id}/")
        new_project(campaign)
        sync(campaign)
        submit(client, campaign.tasks.get(rank=1), polygon(SQUARE))
        sync(campaign)
        names = Annotation.objects.order_by("id").values_list("annotator_name", flat=True)
        assert list(names) == ["else@example.org", labelstudio.username]

    def test_a_project_of_before_marks_were_kept_is_known_by_its_description(self, worked, campaign, client):
        Campaign.objects.filter(pk=campaign.pk).update(ls_mark="")
        assert not sync(campaign, full=True)
        campaign.refresh_from_db()
        assert campaign.ls_mark in client.project(campaign.ls_project_id)["description"]
        Campaign.objects.filter(pk=campaign.pk).update(ls_mark="")
        client.change_project(campaign.ls_project_id, {"description": "Campaign pool (thawloop:" + "0" * 24 + ")"})
        with pytest.raises(ForeignProject):
            sync(campaign)


@pytest.mark.labelstudio
@pytest.mark.django_db
class TestManyRemovals:
    """More than a few removals at once wait for a lead."""

    def test_deleted_tasks_wait_until_a_lead_accepts_as_many(self, worked, campaign, client, admin_client):
        for task in worked[:4]:
            client.delete_task(task.ls_task_id)
        submit(client, worked[5], polygon(RING))
        with pytest.raises(RemovalsUnconfirmed, match="4 tasks are gone: nothing was taken back"):
            sync(campaign, full=True)
        assert states(campaign) == ["submitted"] * 4 + ["returned", "submitted"]  # what is new was recorded
        assert current_labels(campaign).count() == 5
        with pytest.raises(RemovalsUnconfirmed):
            sync(campaign)  # still, when only what changed is read
        with pytest.raises(ExchangeStopped):
            ensure_project(campaign)
        with pytest.raises(RemovalsUnconfirmed):
            sync(campaign, accept_removals=3)
        assert "Accept 4 removals" in admin_client.get("/campaigns/peel/panels/queue/").content.decode()
        assert admin_client.get("/api/campaigns/peel/").json()["ls_removals"] == 4
        call_command("sync", campaign="peel", accept_removals=4)
        campaign.refresh_from_db()
        assert states(campaign) == ["withdrawn"] * 4 + ["returned", "submitted"]
        assert (campaign.ls_stopped, campaign.ls_removals) == ("", None)
        assert AuditEntry.objects.filter(action="labeling.accept_removals", after={"removals": 4}).exists()

    def test_deleted_annotations_wait_as_well_and_a_few_are_believed(self, worked, campaign, client):
        numbers = list(Annotation.objects.order_by("id").values_list("ls_annotation_id", flat=True))
        client._call("DELETE", f"/api/annotations/{numbers[0]}/")
        assert sync(campaign).deleted == 1
        for number in numbers[1:4]:  # one by one within a moment is at once
            client._call("DELETE", f"/api/annotations/{number}/")
        with pytest.raises(RemovalsUnconfirmed, match="3 annotations are gone"):
            sync(campaign)
        assert current_labels(campaign).count() == 3

    def test_what_was_submitted_on_a_copy_of_a_task_is_not_gone(self, worked, campaign, client):
        first = worked[0]
        data = client.task(first.ls_task_id)["data"]
        (copy,) = client.import_tasks(campaign.ls_project_id, [{"data": data}])["task_ids"]
        made = client._object("POST", f"/api/tasks/{copy}/annotations/", content={"result": [polygon(RING)]})["id"]
        assert sync(campaign, full=True).recorded == 1
        assert sync(campaign, full=True).deleted == 0
        assert Annotation.objects.get(ls_annotation_id=made).kind == "submitted"
        client.delete_task(copy)
        assert sync(campaign, full=True).deleted == 1

    def test_a_database_restored_from_a_backup_takes_nothing_back(self, worked, campaign, client):
        """It lacks a task and two annotations of later, and holds an older state of two others."""
        client.delete_task(worked[0].ls_task_id)
        for task in worked[1:3]:
            row = task.annotations.get()
            client._call("DELETE", f"/api/annotations/{row.ls_annotation_id}/")
        for task in worked[3:5]:
            row = task.annotations.get()
            later = {"updated_at": row.created.isoformat()}
            record_payload(task, annotation(row.ls_annotation_id, polygon(SQUARE), polygon(RING, "r2")) | later)
        before = current_labels(campaign).count()
        with pytest.raises(
            RemovalsUnconfirmed, match="1 tasks are gone and 2 annotations are gone and 2 annotations are"
        ):
            sync(campaign, full=True)
        assert current_labels(campaign).count() == before == 7
        unknown = submit(client, worked[5], polygon(RING))
        assert new_project(campaign) == 0  # all have been annotated by now
        assert Annotation.objects.get(ls_annotation_id=unknown).task == worked[5]
        assert current_labels(campaign).count() == 8

    def test_a_project_that_holds_what_it_held_is_not_left(self, worked, campaign, client):
        with pytest.raises(Conflict, match="is still in Label Studio"):
            new_project(campaign)
        nothing_was_taken_back(campaign)


@pytest.mark.labelstudio
@pytest.mark.django_db
class TestWhatLabelStudioHolds:
    """Content counts, not only times."""

    def test_what_was_forged_before_is_put_right_whatever_its_time(self, worked, campaign, client):
        """Earlier versions believed webhooks: rows of a time to come, of the same time, deletions that were none."""
        forged, same, gone = worked[:3]
        number = forged.annotations.get().ls_annotation_id
        record_payload(forged, annotation(number, polygon(RING, "x")) | {"updated_at": "2199-01-01T00:00:00Z"})
        row = same.annotations.get()
        Annotation.objects.create(
            task=same,
            ls_annotation_id=row.ls_annotation_id,
            ls_updated_at=row.ls_updated_at,
            kind="submitted",
            result=[],
            supersedes=row,
        )
        record_deletion(gone, gone.annotations.get().ls_annotation_id)
        assert sync(campaign, full=True).recorded == 3
        assert {revision.label.origin.split(":")[2] for revision in current_labels(campaign)} == {"r1"}
        assert labelled_tiles(campaign).count() == 4
        assert not sync(campaign, full=True)

    def test_a_time_ahead_of_the_servers_is_not_believed(self, worked, campaign, client, monkeypatch):
        monkeypatch.setattr(
            pull, "MAX_CLOCK_LEAD", timedelta(days=-1)
        )  # as if the server's clock had been put back by a day
        submit(client, worked[5], polygon(RING))
        report = sync(campaign)
        assert (report.bad, report.recorded) == (1, 0)
        monkeypatch.undo()
        assert sync(campaign).recorded == 1

    def test_a_task_that_was_withdrawn_by_mistake_is_given_again(self, worked, campaign, client):
        campaign.tasks.filter(pk=worked[0].pk).update(state="withdrawn")
        sync(campaign, full=True)
        nothing_was_taken_back(campaign)

    def test_a_page_costs_as_many_queries_for_one_unchanged_task_as_for_many(self, worked, campaign, client):
        counts = []
        for wanted in (worked[:1], worked):
            reading = Pull(campaign, client, SyncReport())
            with CaptureQueriesContext(connection) as queries:
                reading.some(task.ls_task_id for task in wanted)
            counts.append(len(queries))
        assert counts[0] == counts[1] <= 4

    def test_annotators_and_leads_see_what_was_not_understood(self, worked, campaign, client, admin_client):
        task = worked[4]
        (tab,) = [view for view in client.views(campaign.ls_project_id) if view["data"]["title"] == "To be corrected"]

        def shown() -> dict[int, str]:
            params = {"project": campaign.ls_project_id, "view": tab["id"]}
            listed = client._object("GET", "/api/tasks/", params=params)["tasks"]
            return {found["id"]: found["data"]["thawloop_note"] for found in listed}

        assert list(shown()) == [task.ls_task_id]
        assert "crosses itself" in shown()[task.ls_task_id]
        assert '<Header value="$thawloop_note"' in client.project(campaign.ls_project_id)["label_config"]
        page = admin_client.get("/campaigns/peel/panels/queue/").content.decode()
        assert "crosses itself" in page
        answer = admin_client.get("/api/annotations/?campaign=peel&has_problems=true").json()
        assert ["crosses itself" in row["problems"][0] for row in answer["results"]] == [True]
        number = task.annotations.get().ls_annotation_id
        client._object("PATCH", f"/api/annotations/{number}/", content={"result": [polygon(SQUARE)]})
        sync(campaign)
        assert shown() == {}
        assert labelled_tiles(campaign).count() == 5


def test_numbers_of_an_earlier_project_are_other_annotations(task):
    """Label Studio counts from 1 again: an annotation 1 that was deleted, and another annotation 1."""
    campaign = task.campaign
    record_payload(task, annotation(1, polygon(SQUARE)))
    record_deletion(task, 1)
    campaign.ls_generation = 1
    campaign.save()
    (second,) = build_tasks(campaign, 1)
    for number, mine in enumerate([second, task], start=1):
        recorded = record_payload(mine, annotation(number, polygon(RING), minute=1))
        assert (recorded.kind, recorded.ls_generation) == ("submitted", 1)
    record_payload(second, annotation(1, polygon(SQUARE), minute=2))
    origins = sorted(revision.label.origin for revision in current_labels(campaign))
    assert origins == ["ls:1/1:r1", "ls:1/2:r1"]
    record_deletion(task, 1)  # in the new project the number is another task's
    assert current_labels(campaign).count() == 2
    assert [row.ls_generation for row in Annotation.objects.filter(kind="deleted")] == [0]
