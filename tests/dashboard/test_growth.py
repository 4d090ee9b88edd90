"""What pages and lists may cost as campaigns grow: asked of each one, on a small campaign with everything in it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from benchmarks.scale_campaign import fill
from thawloop.campaigns.models import Campaign
from thawloop.core.bulk import BULKY, count_of
from thawloop.dashboard.api_urls import router
from thawloop.dashboard.views import PANELS

OURS = ("core", "catalog", "labeling", "releases", "training")
JOINS = ("Nested Loop", "Hash Join", "Merge Join")
# Lists whose rows are about another row's geometry, or hold rows of their own.
MEANT = {"labels": {"labeling_labelrevision"}, "predictions": {"labeling_predictedinstance"}}


@pytest.fixture
def campaign(db: None) -> Campaign:
    """A hundred tiles, fifty tasks, two hundred labels."""
    grown: Campaign = fill(100, vertices=200)
    return grown


@pytest.fixture
def looker(db: None, admin_client: Client) -> Client:
    """Somebody who may see everything."""
    return admin_client


def _lists() -> dict[str, tuple[str, str]]:
    """Address and own table of every list of the API and the admin."""
    found = {}
    for prefix, view, _ in router.registry:
        found[f"api {prefix}"] = (f"/api/{prefix}/", view.queryset.model._meta.db_table)
    for model in admin.site._registry:
        meta = model._meta
        if meta.app_label in OURS:
            address = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
            found[f"admin {meta.model_name}"] = (address, meta.db_table)
    return found


def _pages(campaign: Campaign) -> dict[str, str]:
    pages = {"campaigns": reverse("campaigns"), "campaign": reverse("campaign", args=[campaign.name])}
    pages |= {f"panel {panel}": reverse("panel", args=[campaign.name, panel]) for panel in PANELS}
    pages["curve"] = reverse("learning-curve", args=[campaign.name])
    return pages | {name: address for name, (address, _) in _lists().items()}


@contextmanager
def _joined_rows() -> Iterator[list[tuple[int, str]]]:
    """How many rows each join of each query made, as the database itself counts them."""
    made: list[tuple[int, str]] = []
    explaining = False

    def watch(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal explaining
        if not explaining and sql.startswith("SELECT") and not many:
            explaining = True
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
                (plan,) = cursor.fetchone()
            explaining = False
            made.append((_most_joined(json.loads(plan)[0]["Plan"] if isinstance(plan, str) else plan[0]["Plan"]), sql))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        yield made


def _most_joined(node: dict[str, Any]) -> int:
    here = node["Actual Rows"] * node["Actual Loops"] if node["Node Type"] in JOINS else 0
    return max([here, *(_most_joined(child) for child in node.get("Plans", []))])


def test_no_page_or_list_multiplies_relations(looker: Client, campaign: Campaign) -> None:
    """A join may make as many rows as its larger side has, never the product of several relations."""
    most = max(model.objects.count() for model in apps.get_models() if model._meta.app_label in OURS)
    for name, address in _pages(campaign).items():
        with _joined_rows() as made:
            assert looker.get(address).status_code == 200, name
        rows, sql = max(made)
        assert rows <= 2 * most, f"{name} joins {rows} rows where the largest table has {most}: {sql[:600]}"


def test_lists_leave_the_bulk_of_related_rows_in_the_database(looker: Client, campaign: Campaign) -> None:
    models = [model for model in apps.get_models() if model._meta.app_label in OURS]
    for name, (address, table) in _lists().items():
        with CaptureQueriesContext(connection) as queries:
            assert looker.get(address).status_code == 200, name
        own = {table, *MEANT.get(name.removeprefix("api "), ())}
        bulky = {
            f'"{model._meta.db_table}"."{field.column}"'
            for model in models
            if model._meta.db_table not in own
            for field in model._meta.concrete_fields
            # JSON of rows that are fetched by themselves (a campaign's few modalities) is no burden
            if isinstance(field, BULKY) and field.get_internal_type() != "JSONField"
        }
        for query in queries:
            fetched = query["sql"].partition(" FROM ")[0]
            assert not [column for column in bulky if column in fetched], (name, query["sql"][:600])


@pytest.mark.parametrize("kind", ["api", "admin"])
def test_a_longer_list_takes_no_more_queries(looker: Client, campaign: Campaign, monkeypatch, kind: str) -> None:
    for name, (address, _) in _lists().items():
        if not name.startswith(kind):
            continue
        counts = []
        for length in (2, 40):
            for site in admin.site._registry.values():
                monkeypatch.setattr(site, "list_per_page", length)
            with CaptureQueriesContext(connection) as queries:
                assert looker.get(address, {"page_size": length} if kind == "api" else {}).status_code == 200, name
            counts.append(len(queries))
        assert counts[1] <= counts[0] + 1, (name, counts, [query["sql"][:200] for query in queries])


def test_campaign_cards_count_each_relation_by_itself(looker: Client, campaign: Campaign) -> None:
    from thawloop.dashboard.selectors import campaign_cards

    (card,) = campaign_cards()
    assert (card.done_tasks, card.open_tasks, card.label_count) == (40, 10, campaign.labels.count())
    assert card.last_activity == campaign.tasks.latest("updated").updated


def test_a_count_of_nothing_is_zero(db: None, campaign: Campaign) -> None:
    from labeling.models import AcquisitionBatch, AnnotationTask

    AcquisitionBatch.objects.create(campaign=campaign, number=99, strategy="random", seed=0, candidates=0)
    counts = AcquisitionBatch.objects.annotate(size=count_of(AnnotationTask, "batch")).values_list("number", "size")
    assert dict(counts) == {1: 50, 99: 0}


def test_tiles_of_a_region_with_a_long_outline_are_as_small_as_others(looker: Client, campaign: Campaign) -> None:
    answer = looker.get("/api/tiles/", {"page_size": 10})
    assert len(answer.content) < 20_000
    assert re.search(rb'"region":"scale-test"', answer.content)
