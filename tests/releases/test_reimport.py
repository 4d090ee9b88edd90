"""The same file again, edited files, and imports that are taken back."""

import sqlite3
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connection
from rest_framework.test import APIClient
from shapely.geometry.base import BaseGeometry

from labeling.errors import AlreadyWithdrawn, BadWithdrawal
from labeling.models import Label, LabelImport, LabelRevision
from labeling.selectors import current_labels, labelled_tiles
from labeling.services.imports import withdraw_import
from tests.releases.site import Site
from thawloop.campaigns.models import Campaign, CampaignRegion, LandformClass
from thawloop.catalog.geometry import project, to_shapely
from thawloop.catalog.services import define_region
from thawloop.core.context import acting
from thawloop.core.models import AuditEntry
from thawloop.releases.services import import_labels, label_import

pytestmark = pytest.mark.django_db
Write = Callable[..., Path]


def write(path: Path, *shapes: BaseGeometry, crs: str | None = "EPSG:4326", **fields: list[str]) -> Path:
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object),
        [np.array(values, dtype=object) for values in fields.values()],
        list(fields),
        driver={".gpkg": "GPKG", ".shp": "ESRI Shapefile"}[path.suffix],
        geometry_type=shapes[0].geom_type,
        crs=crs,
    )
    return path


def shown(campaign: Campaign) -> list[shapely.Point]:
    """Where the labels are."""
    return sorted((to_shapely(label.geometry).centroid for label in current_labels(campaign)), key=lambda p: p.x)


def test_the_same_again_is_said_to_be_nothing_new(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file(site.square(0, 0))
    first = import_labels(campaign, path)
    out = StringIO()

    call_command("import_labels", path, campaign="site", stdout=out)

    assert out.getvalue() == f"labels.geojson: nothing new, the same as import {first.pk}\n"
    assert (
        LabelImport.objects.count()
        == Label.objects.count()
        == AuditEntry.objects.filter(action="labels.import").count()
    )


def test_what_an_open_qgis_keeps_beside_a_geopackage_is_read(campaign: Campaign, site: Site, data_root: Path) -> None:
    path = write(data_root / "slumps.gpkg", site.square(0, 0), name=["one"])
    qgis = sqlite3.connect(path)
    qgis.execute("PRAGMA journal_mode=WAL")
    for name in ("IsEmpty", "MinX", "MaxX", "MinY", "MaxY"):
        qgis.create_function(f"ST_{name}", 1, lambda blob: 0)
    qgis.execute("UPDATE slumps SET name = 'one'")
    qgis.commit()
    import_labels(campaign, path)
    before = path.read_bytes()
    blob = b"GP\x00\x01" + (4326).to_bytes(4, "little") + shapely.to_wkb(site.square(1, 1))
    qgis.execute("INSERT INTO slumps (geom, name) VALUES (?, 'two')", [blob])
    qgis.commit()  # the person pressed "save"

    again = import_labels(campaign, path)

    assert path.read_bytes() == before
    qgis.close()
    assert not again.already_there
    assert (again.counts["created"], again.counts["unchanged"]) == (1, 1)


def test_a_corrected_coordinate_system_is_read_anew(campaign: Campaign, site: Site, data_root: Path) -> None:
    square = site.square(0, 0)
    path = write(data_root / "slumps.shp", project(square, 4326, 3413), crs="EPSG:3413")
    right = path.with_suffix(".prj").read_text()
    path.with_suffix(".prj").write_text(right.replace('Central_Meridian",-45', 'Central_Meridian",-44.999'))
    wrong = import_labels(campaign, path)

    path.with_suffix(".prj").write_text(right)
    corrected = import_labels(campaign, path)
    withdraw_import(wrong, reason="the wrong meridian")

    assert corrected.checksum == wrong.checksum
    assert corrected.counts["created"] == 1
    (place,) = shown(campaign)
    assert place.distance(square.centroid) < 1e-9


def test_attributes_beside_a_shapefile_count(campaign: Campaign, site: Site, data_root: Path) -> None:
    campaign.classes.add(LandformClass.objects.create(name="Lake"))
    path = write(data_root / "x.shp", site.square(0, 0), site.square(1, 0), kind=["RTS", "RTS"], other=["Lake", "RTS"])
    import_labels(campaign, path, class_field="kind")
    other_field = import_labels(campaign, path, class_field="other")
    write(data_root / "x.shp", site.square(0, 0), site.square(1, 0), kind=["RTS", "Lake"], other=["Lake", "RTS"])
    edited = import_labels(campaign, path, class_field="kind")

    assert (other_field.counts["created"], other_field.counts["unchanged"]) == (1, 1)
    assert (edited.counts["created"], edited.counts["unchanged"]) == (1, 1)


def test_another_layer_and_another_radius_are_other_imports(campaign: Campaign, site: Site, data_root: Path) -> None:
    path = write(data_root / "p.gpkg", site.square(0, 0).centroid)
    first = import_labels(campaign, path, buffer_points=10)
    second = import_labels(campaign, path, buffer_points=20)
    assert second.counts["created"] == 1
    assert import_labels(campaign, path, buffer_points=10) == first
    two = {"driver": "GPKG", "geometry_type": "Polygon", "crs": "EPSG:4326"}
    for layer, col in (("old", 0), ("new", 1)):
        shape = shapely.to_wkb([site.square(col, 2)])
        pyogrio.raw.write(data_root / "two.gpkg", shape, [], [], layer=layer, append=layer == "new", **two)
    import_labels(campaign, data_root / "two.gpkg", layer="old")
    assert import_labels(campaign, data_root / "two.gpkg", layer="new").counts["created"] == 1


def test_coverage_may_be_said_later(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file(site.square(0, 0))
    import_labels(campaign, path)
    assert not labelled_tiles(campaign)

    covering = import_labels(campaign, path, coverage="regions")

    assert (covering.counts["created"], covering.counts["unchanged"]) == (0, 1)
    assert labelled_tiles(campaign).count() == 18


def test_another_coverage_and_another_area_are_other_imports(campaign: Campaign, site: Site, label_file: Write) -> None:
    path = label_file(site.square(0, 0), site.square(4, 0))
    whole = import_labels(campaign, path)
    import_labels(campaign, path, coverage=site.block(0, 0, 1, 1))
    import_labels(campaign, path, coverage=site.block(0, 0, 2, 1))
    assert labelled_tiles(campaign).count() == 2
    part = import_labels(campaign, path, splits=["train"])
    region = define_region("site-between", site.block(4, 0, 1, 3))
    CampaignRegion.objects.create(campaign=campaign, region=region, split="train")

    grown = import_labels(campaign, path, splits=["train"])

    assert not grown.already_there
    assert (part.counts["held_back"], grown.counts["held_back"]) == (1, 0)
    assert import_labels(campaign, path) == whole  # which is the same, whatever regions there are


def test_imports_of_older_versions_are_known_by_file_and_options(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    path = label_file(site.square(0, 0), site.square(1, 0))
    old = import_labels(campaign, path)
    LabelImport.objects.update(fingerprint="")

    assert import_labels(campaign, path) == old
    assert import_labels(campaign, path, coverage="regions") != old
    assert import_labels(campaign, path, splits=["train"]) != old
    assert import_labels(campaign, path, regions=["site-train"]) != old
    assert import_labels(campaign, path, landform_class="RTS") == old
    assert import_labels(campaign, label_file(site.square(1, 0), name="a-part-of-it.geojson")) != old


def test_a_withdrawn_import_counts_no_longer_and_may_come_again(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    path = label_file(site.square(0, 0), site.square(1, 0))
    found = import_labels(campaign, path, coverage="regions")

    with acting(name="lead"):
        withdraw_import(found, reason="not checked yet")

    assert not current_labels(campaign)
    assert not labelled_tiles(campaign)
    revisions = LabelRevision.objects.order_by("label_id", "number")
    assert [(row.number, row.state) for row in revisions] == [(1, "present"), (2, "retired")] * 2
    assert revisions[1].reason == f"import {found.pk} withdrawn: not checked yet"
    assert revisions[1].author_name == "lead"
    entry = AuditEntry.objects.get(action="labels.withdraw")
    assert (entry.after["retired"], entry.reason, entry.actor_name) == (2, "not checked yet", "lead")
    with pytest.raises(AlreadyWithdrawn):
        withdraw_import(found, reason="again")
    again = import_labels(campaign, path, coverage="regions")
    assert again.pk != found.pk
    assert len(current_labels(campaign)) == 2


def test_what_another_import_says_as_well_stays_until_that_is_withdrawn(
    campaign: Campaign, site: Site, label_file: Write
) -> None:
    first = import_labels(campaign, label_file(site.square(0, 0), site.square(1, 0), name="a.geojson"))
    second = import_labels(campaign, label_file(site.square(1, 0), site.square(2, 0), name="b.geojson"))
    third = import_labels(campaign, label_file(site.square(1, 0), site.square(3, 0), name="c.geojson"))
    assert [item.counts["created"] for item in (first, second, third)] == [2, 1, 1]

    left = []
    for found in (first, third, second):
        withdraw_import(found, reason="one by one")
        left.append(len(current_labels(campaign)))

    assert left == [3, 2, 0]


@pytest.mark.django_db(transaction=True)
def test_what_an_import_under_way_says_as_well_stays(
    make_campaign: Callable[..., Campaign], site: Site, label_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Withdrawn between what the other import found in the database and what it wrote."""
    campaign = make_campaign()
    first = import_labels(campaign, label_file(site.square(0, 0), name="a.geojson"))
    withdrawing = threading.Thread(target=alone, args=[lambda: withdraw_import(first, reason="wrong")])
    write_staged = label_import.write_staged

    def slow(found: LabelImport) -> None:
        withdrawing.start()
        while withdrawing.is_alive() and not somebody_waits():
            time.sleep(0.01)
        write_staged(found)

    monkeypatch.setattr(label_import, "write_staged", slow)
    second = import_labels(campaign, label_file(site.square(0, 0), site.square(1, 0), name="b.geojson"))
    withdrawing.join()

    assert (second.counts["created"], second.counts["unchanged"]) == (1, 1)
    first.refresh_from_db()
    assert first.withdrawn is not None
    assert len(current_labels(campaign)) == 2


def alone(work: Callable[[], object]) -> None:
    """In a thread, with a connection of its own."""
    try:
        work()
    finally:
        connection.close()


def somebody_waits() -> bool:
    """Whether a transaction waits for another one's lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_withdrawing_needs_a_reason_and_the_permission(campaign: Campaign, site: Site, label_file: Write) -> None:
    found = import_labels(campaign, label_file(site.square(0, 0)))
    with pytest.raises(BadWithdrawal):
        withdraw_import(found, reason=" ")
    answers = {}
    for role in ("annotator", "reviewer", "lead"):
        user = get_user_model().objects.create_user(role)
        user.groups.add(Group.objects.get(name=role))
        client = APIClient()
        client.force_authenticate(user)
        answers[role] = client.post(f"/api/imports/{found.pk}/withdraw/", {"reason": "wrong"}, format="json")
    assert {role: answer.status_code for role, answer in answers.items()} == {
        "annotator": 403,
        "reviewer": 403,
        "lead": 200,
    }
    assert answers["lead"].json()["withdrawn_reason"] == "wrong"
    assert client.post(f"/api/imports/{found.pk}/withdraw/", {"reason": "x"}, format="json").status_code == 409
    assert client.post(f"/api/imports/{found.pk}/withdraw/", {}, format="json").status_code == 400
    assert not current_labels(campaign)


def test_an_import_is_withdrawn_by_command_and_in_the_admin(
    campaign: Campaign, site: Site, label_file: Write, admin_client: object
) -> None:
    first = import_labels(campaign, label_file(site.square(0, 0), name="a.geojson"))
    second = import_labels(campaign, label_file(site.square(1, 0), name="b.geojson"))
    out = StringIO()

    call_command("withdraw_import", first.pk, reason="wrong", stdout=out)
    answer = admin_client.post(  # type: ignore[attr-defined]
        "/admin/labeling/labelimport/", {"action": "withdraw", "_selected_action": [second.pk]}, follow=True
    )

    assert out.getvalue() == f"Import {first.pk} (a.geojson) withdrawn: 1 labels retired.\n"
    assert "1 labels retired" in answer.content.decode()
    assert not current_labels(campaign)
    with pytest.raises(CommandError, match="There is no import 999999"):
        call_command("withdraw_import", 999_999, reason="wrong")
