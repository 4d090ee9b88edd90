"""The command line: results as JSON, refusals as one sentence and exit code 1, usage errors as 2."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import shapely
from django.core.management import CommandError, call_command

from labeling.models import LabelImport
from labeling.selectors import current_labels
from tests.releases.site import Site
from thawloop.campaigns.models import Campaign
from thawloop.catalog.geometry import geodesic_area, to_shapely
from thawloop.releases.models import Release

Write = Callable[..., Path]


def run(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command(*arguments, "--json", stdout=out)
    result: dict[str, Any] = json.loads(out.getvalue())
    return result


def test_from_label_file_to_export(campaign: Campaign, site: Site, label_file: Write, tmp_path: Path) -> None:
    path = str(label_file(site.square(0, 0), site.square(5, 0)))
    command = ["import_labels", path, "--campaign", "site", "--coverage", "regions"]

    dry = run(*command, "--dry-run")
    assert dry["files"][0]["created"] == 2
    assert not LabelImport.objects.exists()
    assert run(*command)["files"][0]["created"] == 2

    release = run("release", "--campaign", "site", "--notes", "For the paper.", "--verify")
    assert release["release"] == "site/1.0.0"
    assert release["tiles"] == {"train": 12, "val": 0, "test": 6}
    assert (Path(release["path"]) / "manifest.json").exists()
    assert Release.objects.get().notes == "For the paper."

    out = tmp_path / "labels.gpkg"
    assert run("export", "site/1.0.0", "--format", "gpkg", "--out", str(out))["path"] == str(out)
    assert out.exists()
    with pytest.raises(CommandError, match="--force") as refusal:
        run("export", "latest", "--campaign", "site", "--format", "gpkg", "--out", str(out))
    assert refusal.value.returncode == 1
    run("export", "latest", "--campaign", "site", "--format", "gpkg", "--out", str(out), "--force")


@pytest.mark.parametrize(
    ("options", "created", "held_back"),
    [
        ([], 3, 0),
        (["--split", "train", "--split", "val"], 2, 1),
        (["--region", "site-test", "--region", "site-val"], 2, 1),
        (["--split", "train", "--split", "val", "--region", "site-val"], 1, 2),
    ],
)
def test_points_become_circles_in_the_splits_and_regions_named(
    db: None,
    make_campaign: Callable[..., Campaign],
    site: Site,
    label_file: Write,
    options: list[str],
    created: int,
    held_back: int,
) -> None:
    campaign = make_campaign(val=True)
    path = str(label_file(*(site.square(col, 0).centroid for col in (0, 5, 8))))

    (found,) = run("import_labels", path, "--campaign", "site", "--buffer-points", "30", *options)["files"]

    assert (found["created"], found["held_back"]) == (created, held_back)
    areas = [geodesic_area(to_shapely(label.geometry)) for label in current_labels(campaign)]
    assert areas == pytest.approx([2827] * created, rel=0.02)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--class", "lake"], "maps RTS, not `lake`"),
        (["--class-field", "kind"], "class `bog` in field `kind` is unknown"),
        (["--crs", "EPSG:99999999"], "`EPSG:99999999` cannot be used"),
        (["--max-area", "0.0001"], "more than the 0.0001 km² allowed"),
    ],
)
def test_what_an_import_is_told_is_minded(
    campaign: Campaign, site: Site, data_root: Path, options: list[str], sentence: str
) -> None:
    path, kinds = data_root / "two.gpkg", [np.array(["bog"], dtype=object)]
    for layer in ("old", "new"):
        pyogrio.raw.write(
            str(path),
            geometry=shapely.to_wkb([site.square(0, 0)]),
            field_data=kinds,
            fields=["kind"],
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            crs="EPSG:4326",
            append=path.exists(),
        )

    with pytest.raises(CommandError, match=sentence):
        run("import_labels", str(path), "--campaign", "site", "--layer", "new", *options)


def test_human_output_tells_the_counts(campaign: Campaign, site: Site, label_file: Write) -> None:
    out = StringIO()
    path = label_file(site.square(0, 0), site.square(0, 0).centroid)
    call_command("import_labels", str(path), "--campaign", "site", stdout=out)
    counts, refusal = out.getvalue().splitlines()
    assert counts.startswith("labels.geojson: 2 read, 1 created, 1 refused, 1 lost (import ")
    assert [refusal] == [
        "  labels.geojson, feature 1 is a point, not a polygon: refused",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import_labels", "x.geojson"], "the following arguments are required: --campaign"),
        (["import_labels", "x.geojson", "--campaign", "site", "--split", "tset"], "invalid choice: 'tset'"),
        (["release"], "the following arguments are required: --campaign"),
        (["export", "site/1.0.0", "--out", "x.gpkg"], "the following arguments are required: --format"),
        (["export", "site/1.0.0", "--format", "gpkg"], "the following arguments are required: --out"),
    ],
)
def test_usage_errors_name_the_option(arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=f"Error: .*{sentence}"):
        run(*arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import_labels", "missing.geojson", "--campaign", "site"], "missing.geojson"),
        (["import_labels", "x.geojson", "--campaign", "nowhere"], "no campaign 'nowhere': choose one of site"),
        (["release", "--campaign", "site"], "no labelled tile in its train regions"),
        (["export", "site/9.9.9", "--format", "gpkg", "--out", "x.gpkg"], "There is no release `site/9.9.9`"),
    ],
)
def test_refusals_are_one_sentence_and_exit_code_1(campaign: Campaign, arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence) as refusal:
        run(*arguments)
    assert refusal.value.returncode == 1
    assert "\n" not in str(refusal.value)
