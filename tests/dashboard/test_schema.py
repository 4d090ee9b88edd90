"""The API describes itself."""

import pytest
from django.core.management import call_command
from django.test import Client


@pytest.mark.django_db
def test_every_address_of_the_api_is_described_without_a_warning(tmp_path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_a_labels_geometry_is_described_as_geojson(lead: Client) -> None:
    answer = lead.get("/api/schema/", {"format": "json"})
    assert answer.status_code == 200
    label = answer.json()["components"]["schemas"]["Label"]["properties"]
    assert label["geometry"]["properties"]["type"]["enum"] == ["MultiPolygon"]
    assert "revision" in label["properties"]["properties"]
