"""The API answers as it describes itself, whatever it is asked: schemathesis tries every operation of the schema.

Its pytest plugin takes seconds to load and is switched off (pyproject.toml); this calls it as a library.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from rest_framework.authtoken.models import Token

from tests.releases.site import annotate, tiles
from tests.training.world import policy
from thawloop.core.jobs import enqueue
from thawloop.core.services import audit
from thawloop.registry.services import promote
from thawloop.releases.services import freeze_release
from thawloop.training.services import start_retraining

CASES_PER_OPERATION = 3
HOSTILE = ["0", "9" * 30, "%00", "%ED%A0%80", "00000000-0000-0000-0000-000000000000"]


@pytest.fixture
def world(labelled: Any, make_model: Callable[..., Any]) -> Any:
    """A campaign with at least one row of most kinds."""
    annotate(labelled, tiles(labelled, "train")[0], [[(10, 10), (30, 10), (30, 30)]])
    release = freeze_release(labelled)
    version = make_model(labelled, release=release, ap50=0.4)
    promote(version, reason="the first")
    policy(labelled)
    start_retraining(labelled, reason="to have one")
    audit("core.test", enqueue("thawloop.releases.jobs.materialise", key="k", args={"release": 1}))
    return labelled


@pytest.fixture
def one_connection() -> Iterator[None]:
    """Keep the test's transaction, as Django's own test client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def test_every_operation_answers_as_described(world: Any, one_connection: None, settings: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (make install)")
    from thawloop.wsgi import application

    token = Token.objects.create(user=User.objects.create_superuser("boss", password="long-enough")).key
    headers = {"Authorization": f"Token {token}"}
    schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", application, headers=headers)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 60
    rows = _rows(operations, headers)
    assert len(rows) > 12  # details of real rows are read, too
    for operation in operations:
        _try(operation, headers, rows)


def _rows(operations: list[Any], headers: dict[str, str]) -> dict[str, Any]:
    """The first row of each list, by the list's address."""
    found = {}
    for operation in operations:
        if operation.method.upper() == "GET" and "{" not in operation.path:
            results = operation.Case().call(headers=headers).json().get("results", [])
            results = results["features"] if isinstance(results, dict) else results
            if results:
                found[operation.path] = results[0] | results[0].get("properties", {})
    return found


def _try(operation: Any, headers: dict[str, str], rows: dict[str, Any]) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    row = rows.get(operation.path.partition("{")[0], {})
    turn = 0

    @settings(
        max_examples=CASES_PER_OPERATION,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def once(case: Any) -> None:
        nonlocal turn
        turn += 1
        known = {name: row[name] for name in case.path_parameters or {} if name in row}
        if turn % 2 and known:  # every other time the row is one that there is
            case.path_parameters = {**case.path_parameters, **known}
        with transaction.atomic():
            case.validate_response(case.call(headers=headers), checks=wanted)
            transaction.set_rollback(True)

    once()


ODD_BODIES = [
    '{"geometry": {"type": "Polygon", "coordinates": []}, "properties": "odd"}',
    '{"geometry": {"type": "Polygon", "coordinates": []}, "properties": ["odd"]}',
    '{"geometry": {"type": "Polygon", "coordinates": []}, "properties": null}',
    '{"geometry": {"type": "Polygon", "coordinates": "odd"}, "name": "r"}',
    '{"geometry": "GEOMETRYCOLLECTION(' + "GEOMETRYCOLLECTION(" * 50_000 + '", "name": "r"}',
    '{"geometry": null, "name": "r"}',
    '{"geometry": "", "name": "r"}',
    '["properties"]',
    '"properties"',
    "7",
    "null",
    "[" * 100_000,
    '{"name": "\\ud800", "geometry": {}}',
    '{"name": "\\u0000", "geometry": {}}',
    '{"name": "g", "pixel_size": 1e999, "srid": 3413, "tile_size": 64}',
    '{"name": "g", "pixel_size": "nan", "srid": 3413, "tile_size": 64}',
    '{"name": "g", "pixel_size": "inf", "srid": 3413, "tile_size": 64}',
    '{"name": "g", "pixel_size": 3, "srid": 1e30, "tile_size": 64}',
    '{"name": "g", "pixel_size": 3}',
]


def test_odd_bodies_are_refused(world: Any) -> None:
    client = _boss()
    for name in ("regions", "grids", "modalities", "scenes", "classes", "releases", "policies", "retrainings"):
        for body in ODD_BODIES:
            answer = client.post(f"/api/{name}/", body, content_type="application/json")
            assert answer.status_code < 500, (name, body[:100])
            if name in ("regions", "grids"):  # to the others some of it makes sense
                assert answer.status_code == 400, (name, body[:100], answer.content)


def test_no_address_fails_on_odd_names_or_methods(world: Any) -> None:
    client = _boss()
    for pattern in _addresses():
        asked = [("get", odd) for odd in HOSTILE if "{}" in pattern]
        asked += [(method, "0") for method in ("get", "head", "options", "post", "put", "patch", "delete", "trace")]
        for method, odd in asked:
            answer = getattr(client, method)("/" + pattern.replace("{}", odd))
            assert answer.status_code < 500, (method, pattern, odd)


def _boss() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("boss", password="long-enough"))
    return client


def _addresses() -> list[str]:
    """Every address of ours with `{}` for what is variable; the admin's own are Django's business."""
    from django.urls import get_resolver

    resolver = get_resolver()
    named = [entry for key in resolver.reverse_dict for entry in resolver.reverse_dict.getlist(key)]
    for space in resolver.namespace_dict:
        if space != "admin":
            prefix, inner = resolver.namespace_dict[space]
            named += [
                ([(prefix + form, names) for form, names in forms], *rest)
                for key in inner.reverse_dict
                for forms, *rest in inner.reverse_dict.getlist(key)
            ]
    found = set()
    for forms, *_rest in named:
        for form, names in forms:
            found.add(form % dict.fromkeys(names, "{}"))
    return sorted(address for address in found if not address.endswith(".{}"))  # the same with a format's name
