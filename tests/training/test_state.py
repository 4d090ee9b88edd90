"""What is asked of a campaign is asked once, however much has been trained; counting holds nobody up."""

import threading
from collections.abc import Callable

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from tests.releases.site import PERIOD, annotate, tiles
from tests.training.world import make_model, policy, queued
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Modality
from thawloop.core.jobs import run_inline
from thawloop.registry.services import promote
from thawloop.releases.services import freeze_release
from thawloop.training.errors import RetrainingConflict
from thawloop.training.models import Retraining, TrainingRun
from thawloop.training.selectors import CampaignState, explain_policy, may_be_due, outlook
from thawloop.training.services import apply_policies, consider_retraining, start_retraining

pytestmark = pytest.mark.django_db
TRIANGLE = [[(10.0, 10.0), (30.0, 10.0), (30.0, 30.0)]]
COUNTS = '"catalog_tile"'  # in every question about labelled tiles, and in none of the others


def asked(question: Callable[[], object]) -> list[str]:
    """The queries of a question, without those that only mark transactions; what it changes is undone."""
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        question()
        transaction.set_rollback(True)
    marks = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")
    return [query["sql"] for query in queries if not query["sql"].startswith(marks)]


def train(campaign: Campaign, number: int) -> Retraining:
    """A retraining that is done, with its release, its runs and its model."""
    release = freeze_release(campaign)
    retraining = Retraining.objects.create(
        campaign=campaign, number=number, reason="x", state="done", promoted=True, release=release
    )
    for name in ("rgb", "dem"):
        run = {"stage": "pretrain", "modality": Modality.objects.get(name=name), "config": {}, "seed": 1}
        TrainingRun.objects.create(retraining=retraining, path=f"models/lost-{number}-{name}", **run)
    promote(make_model(campaign, number, release=release), reason="x", request_predictions_now=False)
    return retraining


@pytest.mark.parametrize(
    "question",
    [
        lambda campaign: explain_policy(CampaignState(campaign)),
        lambda campaign: outlook(CampaignState(campaign)),
        lambda campaign: start_retraining(campaign, reason="x"),
        lambda campaign: consider_retraining(campaign),
    ],
    ids=["explain", "outlook", "start", "consider"],
)
def test_five_retrainings_take_no_more_queries_than_one(
    labelled: Campaign, question: Callable[[Campaign], object]
) -> None:
    policy(labelled, min_new_tiles=1)
    counts = []
    for number in range(1, 6):
        train(labelled, number)
        annotate(labelled, tiles(labelled, "train")[number], TRIANGLE)
        counts.append(len(asked(lambda: question(labelled))))
    assert len(set(counts)) == 1


def test_a_pass_of_the_policies_takes_three_queries_per_campaign_in_which_nothing_changed(labelled: Campaign) -> None:
    counts = []
    for number in (1, 2, 3):
        campaign = labelled if number == 1 else Campaign.objects.create(
            name=f"c{number}", title="Another", grid=labelled.grid, **PERIOD
        )  # fmt: skip
        policy(campaign, min_new_tiles=1000)
        apply_policies()
        counts.append(len(asked(apply_policies)))
    assert counts == [4, 7, 10]


def test_policy_and_outlook_of_one_state_ask_nothing_twice(labelled: Campaign) -> None:
    policy(labelled, min_new_tiles=1)
    train(labelled, 1)
    state = CampaignState(labelled)

    def everything() -> None:
        assert not may_be_due(state) or explain_policy(state)
        assert outlook(state).stages

    queries = asked(everything)
    assert len(set(queries)) == len(queries)
    assert len([query for query in queries if "GROUP BY" in query and COUNTS in query]) == 1


def test_tiles_are_counted_before_the_campaign_is_locked(labelled: Campaign) -> None:
    queries = asked(lambda: start_retraining(labelled, reason="x"))
    lock = next(place for place, query in enumerate(queries) if "FOR UPDATE" in query)
    assert [query for query in queries[:lock] if COUNTS in query]
    assert not [query for query in queries[lock:] if COUNTS in query]


def test_who_decided_before_another_retraining_came_and_ended_starts_none(labelled: Campaign) -> None:
    policy(labelled, min_new_tiles=1)
    seen = CampaignState(labelled)
    assert explain_policy(seen).due
    train(labelled, 1)
    with pytest.raises(RetrainingConflict, match="Retraining 1 of `site` was started meanwhile"):
        start_retraining(labelled, reason="due", seen=seen)
    assert labelled.retrainings.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_label_that_arrives_after_the_counting_is_in_the_release(labelled: Campaign) -> None:
    seen = CampaignState(labelled)
    assert seen.stock.new_tiles == 12
    annotation = annotate(labelled, tiles(labelled, "train")[7], TRIANGLE)
    retraining = start_retraining(labelled, reason="x", seen=seen)
    run_inline(queued()[0].pk)  # release
    retraining.refresh_from_db()
    assert retraining.release.release_tiles.filter(annotation=annotation).exists()
    assert CampaignState(labelled).stock.new_tiles == 0


@pytest.mark.django_db(transaction=True)
def test_two_starts_at_once_make_one_retraining(labelled: Campaign) -> None:
    counted, refused = threading.Barrier(2), []

    def start() -> None:
        state = CampaignState(labelled)
        assert state.stock.tiles
        counted.wait()
        try:
            start_retraining(labelled, reason="at once", seen=state)
        except RetrainingConflict as conflict:
            refused.append(str(conflict))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert labelled.retrainings.count() == len(refused) == 1
