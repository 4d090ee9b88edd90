"""From submissions to labels: append-only, in any order, exactly once."""

import itertools
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.gis.geos import MultiPolygon
from django.contrib.gis.geos import Polygon as GeosPolygon
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from shapely.geometry import Polygon

from labeling.labelstudio.errors import BadAnnotation
from labeling.labelstudio.submissions import read_version, record_payload, settle_again
from labeling.models import Annotation, AnnotationTask, LabelRevision
from labeling.selectors import (
    Known,
    changed_labels,
    count_labelled,
    current_labels,
    known_tiles,
    labelled_tiles,
    unlabelled_tiles,
)
from labeling.services import record_deletion, withdraw_task
from tests.labeling.build import (
    HOLE,
    RING,
    SQUARE,
    annotation,
    build_champion,
    build_import,
    build_prediction,
    build_tasks,
    inside,
    polygon,
)
from thawloop.catalog.geometry import to_pixels
from thawloop.core.context import acting
from thawloop.core.models import AuditEntry

pytestmark = pytest.mark.usefixtures("neighbour")
MOVED = [[12.0, 10.0], [40.0, 10.0], [40.0, 40.0], [10.0, 40.0]]


def revisions(task):
    return LabelRevision.objects.filter(label__campaign=task.campaign)


def verdict(value):
    return {"id": "v", "type": "choices", "from_name": "verdict", "value": {"choices": [value]}}


def test_a_drawn_polygon_becomes_a_label_where_it_was_drawn(task):
    recorded = record_payload(task, annotation(7, polygon(SQUARE)), people={1: "ann@example.org"})
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.SUBMITTED
    (revision,) = current_labels(task.campaign)
    assert revision.label.origin == "ls:7:r1"
    assert (revision.number, revision.author_name, revision.annotation) == (1, "ann@example.org", recorded)
    pixels = to_pixels(task.tile, revision.geometry)
    assert pixels.bounds == pytest.approx((10, 10, 40, 40), abs=1e-6)
    assert recorded.lead_time == 12.5
    assert recorded.result[0]["id"] == "r1"


def test_an_annotator_with_an_account_here_is_known_by_it(task):
    user = get_user_model().objects.create(username="ann", email="Ann@Example.org")
    recorded = record_payload(task, annotation(7, polygon(SQUARE)), people={1: "ann@example.org"})
    assert recorded.annotator == user
    assert recorded.revisions.get().author == user


def test_recording_the_same_state_twice_changes_nothing(task):
    first = record_payload(task, annotation(7, polygon(SQUARE)))
    assert record_payload(task, annotation(7, polygon(SQUARE))) == first
    assert task.annotations.count() == 1
    assert revisions(task).count() == 1


def test_an_edit_revises_what_moved_and_retires_what_vanished(task):
    record_payload(task, annotation(7, polygon(SQUARE, "a"), polygon(RING, "b"), polygon(HOLE, "c")))
    record_payload(task, annotation(7, polygon(MOVED, "a"), polygon(RING, "b"), minute=1))
    numbers = {revision.label.origin: (revision.number, revision.state) for revision in revisions(task)}
    assert numbers == {"ls:7:a": (2, "present"), "ls:7:b": (1, "present"), "ls:7:c": (2, "retired")}
    first, second = task.annotations.order_by("id")
    assert second.supersedes == first


def test_digits_that_browsers_lose_are_no_change(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(7, polygon([[x + 1e-9, y] for x, y in SQUARE]), minute=1))
    assert revisions(task).count() == 1


def test_an_older_state_that_comes_late_is_not_current(task):
    newest = record_payload(task, annotation(7, polygon(MOVED), minute=5))
    assert record_payload(task, annotation(7, polygon(SQUARE), minute=1)) == newest
    assert current_labels(task.campaign).get().annotation == newest


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_whatever_the_order_the_newest_state_holds(task, order):
    states = [annotation(7, polygon(points), minute=minute) for minute, points in enumerate([SQUARE, RING, MOVED])]
    for index in order:
        record_payload(task, states[index])
    revision = current_labels(task.campaign).get()
    assert revision.annotation.ls_updated_at.minute == 2
    assert to_pixels(task.tile, revision.geometry).area == pytest.approx(Polygon(MOVED).area)
    assert task.annotations.filter(superseded_by__isnull=True).count() == 1


def test_a_deleted_annotation_leaves_its_rows_and_retires_its_labels(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_deletion(task, 7)
    record_deletion(task, 7)
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.OPEN
    assert list(task.annotations.order_by("id").values_list("kind", flat=True)) == ["submitted", "deleted"]
    assert not current_labels(task.campaign).exists()
    assert revisions(task).order_by("-id").first().reason == "annotation 7 was deleted in Label Studio"


def test_who_takes_a_label_back_is_named(task):
    people = {1: "ann@example.org"}
    record_payload(task, annotation(7, polygon(SQUARE, "a"), polygon(RING, "b")), people=people)
    record_payload(task, annotation(7, polygon(SQUARE, "a"), minute=1), people=people)
    with acting(name="sync"):
        record_deletion(task, 7)
    retired = revisions(task).filter(state="retired").order_by("id")
    names = list(retired.values_list("label__origin", "author_name"))
    assert names == [("ls:7:b", "ann@example.org"), ("ls:7:a", "sync")]


def test_what_comes_after_the_deletion_is_ignored(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_deletion(task, 7)
    record_payload(task, annotation(7, polygon(SQUARE), minute=9))
    assert not current_labels(task.campaign).exists()


def test_the_annotation_submitted_last_holds_and_a_deletion_gives_way_to_the_one_before(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(8, polygon(RING), minute=1))
    assert current_labels(task.campaign).get().label.origin == "ls:8:r1"
    record_deletion(task, 8)
    assert current_labels(task.campaign).get().label.origin == "ls:7:r1"
    assert task.campaign.labels.get(origin="ls:7:r1").current.number == 3


def test_a_class_that_is_renamed_leaves_earlier_submissions_as_they_were(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(8, polygon(RING), minute=1))
    task.campaign.classes.update(name="Slump")
    record_deletion(task, 8)
    label = current_labels(task.campaign).get()
    assert (label.label.origin, label.landform_class.name) == ("ls:7:r1", "Slump")


def test_skipping_retires_and_says_so(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(7, polygon(SQUARE), minute=1, was_cancelled=True))
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.SKIPPED
    assert not current_labels(task.campaign).exists()
    assert not labelled_tiles(task.campaign).exists()


def test_an_empty_submission_is_a_labelled_tile_without_labels(task):
    record_payload(task, annotation(7))
    (tile,) = labelled_tiles(task.campaign)
    assert (tile, tile.split) == (task.tile, "train")


@pytest.mark.parametrize("says", ["uncertain", "bad imagery"])
def test_a_verdict_that_says_nothing_leaves_the_tile_unlabelled(task, says):
    recorded = record_payload(task, annotation(7, verdict(says)))
    task.refresh_from_db()
    assert (task.state, recorded.problems) == (AnnotationTask.State.SUBMITTED, [])
    assert not labelled_tiles(task.campaign).exists()
    assert not current_labels(task.campaign).exists()


def test_the_verdict_that_nothing_is_there_makes_a_negative(task):
    record_payload(task, annotation(7, verdict("no RTS in tile")))
    assert labelled_tiles(task.campaign).count() == 1


def test_junk_is_kept_and_named_and_the_submission_makes_no_statement(task):
    junk = {"foo": "a\0b", "n": float("nan"), "s": "\ud800"}
    recorded = record_payload(task, annotation(7, junk, polygon(SQUARE)))
    recorded.refresh_from_db()
    assert recorded.result[0] == {"foo": "a\ufffdb", "n": None, "s": "\ufffd\ufffd\ufffd"}
    assert recorded.problems == ["Region 1 (#1): it is not a region of Label Studio."]
    makes_no_statement(task)


def makes_no_statement(task):
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.RETURNED
    assert not current_labels(task.campaign).exists()
    assert not labelled_tiles(task.campaign).exists()
    assert count_labelled(task.campaign, None)[1] == 0


EIGHT = polygon([(10, 10), (50, 50), (50, 10), (10, 50)], "eight")
MISUNDERSTOOD = {
    "outline like an 8": [EIGHT],
    "one shape of two": [polygon(SQUARE), EIGHT],
    "no class": [polygon(SQUARE) | {"value": {"points": [[1, 1], [9, 1], [9, 9]], "closed": True}}],
    "another class": [polygon(SQUARE, label="Pingo")],
    "verdict beside a shape": [polygon(SQUARE), verdict("no RTS in tile")],
    "unknown verdict": [verdict("no pingo in tile")],
}


@pytest.mark.parametrize("regions", MISUNDERSTOOD.values(), ids=MISUNDERSTOOD)
def test_a_submission_that_was_not_understood_in_full_makes_no_statement(task, regions):
    recorded = record_payload(task, annotation(7, *regions))
    assert recorded.problems
    assert recorded.correction_iou is None
    makes_no_statement(task)


@pytest.mark.parametrize("result", [None, "[]", {}, 0])
def test_a_result_that_is_no_list_is_no_negative(task, result):
    record_payload(task, annotation(7) | {"result": result})
    makes_no_statement(task)


def test_an_edit_that_is_not_understood_takes_back_what_stood_and_its_correction_brings_it_again(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(7, polygon(SQUARE), EIGHT, minute=1))
    makes_no_statement(task)
    assert revisions(task).order_by("-id").first().reason == "annotation 7 was not understood in full"
    record_payload(task, annotation(7, polygon(SQUARE), minute=2))
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.SUBMITTED
    assert current_labels(task.campaign).get().number == 3
    assert list(labelled_tiles(task.campaign)) == [task.tile]


def test_what_was_not_understood_takes_nothing_back_that_another_annotation_said(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(8, EIGHT, minute=1))
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.SUBMITTED
    assert [revision.label.origin for revision in current_labels(task.campaign)] == ["ls:7:r1"]
    assert list(labelled_tiles(task.campaign)) == [task.tile]
    record_deletion(task, 7)
    makes_no_statement(task)


def test_what_was_mended_without_doubt_makes_a_statement(task):
    open_outline = polygon([(-20, 10), (50, 10), (50, 50), (-20, 50)])
    open_outline["value"]["closed"] = False
    recorded = record_payload(task, annotation(7, open_outline))
    assert (recorded.problems, len(recorded.mended)) == ([], 2)
    assert list(labelled_tiles(task.campaign)) == [task.tile]
    assert current_labels(task.campaign).count() == 1


def test_labels_of_before_such_submissions_made_no_statement_are_settled_anew(task):
    """As rows stand that an earlier version wrote: the misunderstood annotation held, and gave what was understood."""
    record_payload(task, annotation(7, polygon(SQUARE)))
    late = record_payload(task, annotation(8, polygon(RING), minute=1))
    fields = {"task": task, "kind": "submitted", "ls_updated_at": late.ls_updated_at + timedelta(minutes=1)}
    edit = Annotation.objects.create(
        **fields, ls_annotation_id=8, supersedes=late, result=[polygon(RING), EIGHT], problems=["Region 2: unclear."]
    )
    assert [revision.label.origin for revision in current_labels(task.campaign)] == ["ls:8:r1"]
    assert settle_again(task.campaign) == 1
    revision = current_labels(task.campaign).get()
    assert (revision.label.origin, revision.annotation.ls_annotation_id) == ("ls:7:r1", 7)
    assert edit.revisions.get().state == "retired"
    assert settle_again(task.campaign) == 1
    assert revisions(task).count() == 5


def test_what_an_earlier_version_did_not_understand_and_this_one_does_is_recorded_anew(task):
    """An arrow between two regions was a problem once; nobody has to submit anything again for it."""
    arrow = {"type": "relation", "from_id": "r1", "to_id": "r2", "direction": "right"}
    fields = {"task": task, "kind": "submitted", "ls_annotation_id": 7, "annotator_name": "ann@example.org"}
    payload = annotation(7, polygon(SQUARE), arrow)
    before = Annotation.objects.create(
        **fields, ls_updated_at=payload["updated_at"], result=payload["result"], problems=["Region 2: unclear."]
    )
    assert settle_again(task.campaign) == 1
    revision = current_labels(task.campaign).get()
    assert (revision.annotation.supersedes, revision.author_name) == (before, "ann@example.org")
    assert list(labelled_tiles(task.campaign)) == [task.tile]
    assert record_payload(task, payload, held_now=True) == revision.annotation
    assert settle_again(task.campaign) == 0


def test_each_task_is_settled_anew_with_its_own_submissions(campaign):
    arrow = {"type": "relation", "from_id": "r1", "to_id": "r2", "direction": "right"}
    tasks = build_tasks(campaign, 2)
    for number, task in enumerate(tasks, start=7):
        payload = annotation(number, polygon(SQUARE), arrow)
        fields = {
            "ls_updated_at": payload["updated_at"],
            "result": payload["result"],
            "problems": ["Region 2: unclear."],
        }
        Annotation.objects.create(task=task, kind="submitted", ls_annotation_id=number, **fields)
    assert settle_again(campaign) == 2
    for number, task in enumerate(tasks, start=7):
        assert list(task.annotations.values_list("ls_annotation_id", flat=True)) == [number, number]
        assert [revision.label.origin for revision in revisions(task).filter(label__tile=task.tile)] == [
            f"ls:{number}:r1"
        ]


@pytest.mark.parametrize("given", ["12.5", True, -1, 1e9, [3], None])
def test_a_lead_time_that_is_no_number_of_seconds_is_unknown(task, given):
    assert record_payload(task, annotation(7, lead_time=given)).lead_time is None


def test_a_time_without_a_zone_is_utc():
    told = read_version(annotation(7, updated_at="2026-11-22T08:00:00"))
    assert told.updated == datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "changes", [{"id": None}, {"id": -1}, {"id": 2**70}, {"updated_at": "soon"}, {"updated_at": None, "created_at": 7}]
)
def test_an_annotation_without_id_or_time_is_refused(task, changes):
    with pytest.raises(BadAnnotation):
        record_payload(task, annotation(7, polygon(SQUARE)) | changes)


def test_untouched_pre_annotations_have_a_correction_of_one_and_deleted_ones_of_zero(task):
    task.prediction = build_prediction(task.tile, build_champion(task.campaign))
    task.save()
    from labeling.labelstudio.regions import write_result
    from labeling.labelstudio.shown import shown_instances

    shown = shown_instances(task.prediction, task.campaign.score_threshold)
    assert [instance.region for instance in shown] == ["p0", "p1"]
    result = write_result(shown, tile_size=128, picture="picture_rgb", picture_size=512)
    untouched = record_payload(task, annotation(7, *result))
    assert untouched.correction_iou == 1.0
    assert untouched.prediction == task.prediction
    assert record_payload(task, annotation(7, minute=1)).correction_iou == 0.0
    half = record_payload(task, annotation(7, result[0], minute=2))
    assert half.correction_iou == pytest.approx(900 / (900 + 2500 - 400))


def test_nothing_shown_and_nothing_drawn_agree(task):
    task.prediction = build_prediction(task.tile, build_champion(task.campaign), instances=[])
    task.save()
    assert record_payload(task, annotation(7)).correction_iou == 1.0


def test_a_named_parent_prediction_is_what_the_annotator_started_from(task):
    old, new = build_champion(task.campaign, 1), build_champion(task.campaign, 2)
    build_prediction(task.campaign.grid.tiles.exclude(pk=task.tile_id).first(), old)
    first = build_prediction(task.tile, old)
    task.prediction = build_prediction(task.tile, new, instances=[])
    task.save()
    recorded = record_payload(task, annotation(7, prediction={"model_version": old.name}))
    assert recorded.prediction == first


def test_withdrawing_a_task_deletes_its_annotations_and_retires_its_labels(task):
    record_payload(task, annotation(7, polygon(SQUARE)))
    withdraw_task(task)
    withdraw_task(task)
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.WITHDRAWN
    assert not current_labels(task.campaign).exists()
    assert task.annotations.filter(kind="deleted").count() == 1
    entry = AuditEntry.objects.get(action="labeling.withdraw_task")
    assert (entry.before, entry.after) == ({"state": "submitted"}, {"state": "withdrawn"})


def test_every_change_is_in_the_audit_trail(task):
    recorded = record_payload(task, annotation(7, polygon(SQUARE)))
    entry = AuditEntry.objects.get(action="labeling.record_annotation", object_id=str(recorded.pk))
    assert entry.after == {
        "state": "submitted",
        "kind": "submitted",
        "problems": [],
        "drawn": 1,
        "changed": 0,
        "retired": 0,
    }


def test_the_database_refuses_to_change_or_remove_history(task):
    recorded = record_payload(task, annotation(7, polygon(SQUARE)))
    for query in (Annotation.objects.filter(pk=recorded.pk), LabelRevision.objects.all()):
        with pytest.raises(DatabaseError), transaction.atomic():
            query.delete() if query.model is LabelRevision else query.update(lead_time=1)


def test_tiles_that_can_still_be_acquired(campaign):
    build_tasks(campaign, 3)
    assert unlabelled_tiles(campaign).count() == 13
    assert unlabelled_tiles(campaign, "test").count() == 0


def test_tiles_inside_an_imports_coverage_are_labelled(campaign):
    tile = campaign.grid.tiles.first()
    west, south, east, north = tile.geometry.extent
    around = GeosPolygon.from_bbox((west - 1e-4, south - 1e-4, east + 1e-4, north + 1e-4))
    build_import(campaign, MultiPolygon(around, srid=4326))
    assert list(labelled_tiles(campaign)) == [tile]
    assert unlabelled_tiles(campaign).count() == 15
    assert count_labelled(campaign, None) == ({"train": 1}, 1)
    assert changed_labels(campaign, None) == 0


def test_a_tile_that_an_imports_coverage_only_reaches_is_partly_covered(campaign):
    first, second, third = campaign.grid.tiles.order_by("id")[:3]
    build_import(campaign, inside(first))
    build_import(campaign, inside(second), withdrawn=timezone.now())
    assert [(row.tile, row.known) for row in known_tiles(campaign)] == [(first.pk, Known.PARTLY_COVERED)]
    assert not labelled_tiles(campaign).filter(pk__in=[first.pk, second.pk, third.pk]).exists()


def test_a_tile_on_which_an_import_lost_a_feature_is_unclear_until_somebody_annotates_it(campaign, task):
    unclear = MultiPolygon(task.tile.geometry.buffer(0), srid=4326)
    build_import(campaign, campaign.regions.get().geometry, unclear=unclear)
    others = set(campaign.grid.tiles.exclude(pk=task.tile_id).values_list("pk", flat=True))
    known = {row.tile: row.known for row in known_tiles(campaign)}
    assert known == {task.tile_id: Known.UNCLEAR} | dict.fromkeys(others, Known.LABELLED)
    assert {tile.pk for tile in labelled_tiles(campaign)} == others
    record_payload(task, annotation(7))
    assert [row.known for row in known_tiles(campaign)] == 16 * [Known.LABELLED]
    assert labelled_tiles(campaign).count() == 16


def test_what_a_withdrawn_import_lost_makes_no_tile_unclear(campaign):
    tile = campaign.grid.tiles.first()
    build_import(campaign, inside(tile), unclear=inside(tile), withdrawn=timezone.now())
    assert not known_tiles(campaign)


def test_changes_since_a_release_count_newer_annotations_and_labels(campaign):
    from thawloop.releases.models import Release

    first, second = build_tasks(campaign, 2)
    for number, task in enumerate([first, second], start=1):
        task.ls_task_id, task.state = number, "open"
        task.save()
    record_payload(first, annotation(7, polygon(SQUARE)))
    release = Release.objects.create(campaign=campaign, version="1.0.0", definition={})
    assert (count_labelled(campaign, None), changed_labels(campaign, None)) == (({"train": 1}, 1), 1)
    assert (count_labelled(campaign, release.created), changed_labels(campaign, release.created)) == (
        ({"train": 1}, 0),
        0,
    )
    record_payload(second, annotation(8, polygon(SQUARE), polygon(RING, "r2")))
    record_payload(first, annotation(7, polygon(MOVED), minute=1))
    assert (count_labelled(campaign, release.created), changed_labels(campaign, release.created)) == (
        ({"train": 2}, 2),
        3,
    )


@pytest.mark.django_db(transaction=True)
def test_a_webhook_and_a_sync_that_see_the_same_annotation_make_one_row(task):
    barrier, errors = threading.Barrier(4), []

    def record():
        try:
            barrier.wait()
            record_payload(task, annotation(7, polygon(SQUARE)))
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert task.annotations.count() == 1
    assert revisions(task).count() == 1


@pytest.mark.parametrize("silent", ["uncertain", "bad imagery"])
def test_a_verdict_that_says_nothing_takes_nothing_back_that_another_annotation_said(task, silent):
    record_payload(task, annotation(7, polygon(SQUARE)))
    record_payload(task, annotation(8, verdict(silent), minute=1))
    assert [revision.label.origin for revision in current_labels(task.campaign)] == ["ls:7:r1"]
    assert list(labelled_tiles(task.campaign)) == [task.tile]
    record_deletion(task, 7)
    task.refresh_from_db()
    assert task.state == AnnotationTask.State.SUBMITTED
    assert not current_labels(task.campaign).exists()
    assert not labelled_tiles(task.campaign).exists()
