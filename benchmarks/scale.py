"""What pages, API, map, policy, acquisition and releases cost as a campaign grows.

    python -m benchmarks.scale [--sizes 2000 10000] [--labelstudio TASKS] [--json]

Fills a campaign of each size in a throwaway PostGIS of its own (a size of N tiles has N/2 tasks, 0.4 N annotations and
2 N labels), and measures there: milliseconds (best of some), number of queries, kilobytes of the answer. Growth is the
ratio of the two sizes' times: 5 is linear when one is five times as large as the other. `--labelstudio N` adds a push
of N tasks and a refresh of their pre-annotations to a real Label Studio.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.database import throwaway

REPEATS = 3
ENOUGH_SECONDS = 1.0  # what takes longer is measured once
ZOOMS = range(2, 15)

Row = dict[str, Any]


class Measured:
    """Collects rows of the table."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def __call__(self, part: str, call: Callable[[], Any], *, once: bool = False) -> Any:
        """Time a call (in which an answer's `content` is weighed) and count its queries."""
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        with CaptureQueriesContext(connection) as queries:
            began = time.perf_counter()
            answer = call()
            best = time.perf_counter() - began
        count = len(queries)  # now: the next request empties the log
        for _ in range(0 if once or best > ENOUGH_SECONDS else REPEATS):
            began = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - began)
        status = getattr(answer, "status_code", 200)
        if status != 200:
            raise SystemExit(f"{part}: {status} {answer.content[:300]!r}")
        size = len(answer.content) if hasattr(answer, "content") else None
        self.rows.append({"part": part, "ms": best * 1000, "queries": count, "kb": size and size / 1000})
        return answer


def measure(tiles: int, pushed: int) -> list[Row]:
    """Fill a campaign and measure everything on it."""
    from benchmarks.scale_campaign import analyze, fill

    with throwaway(labelstudio=pushed > 0):
        campaign = fill(tiles)
        analyze()
        measured = Measured()
        _pages(measured, campaign)
        _api(measured)
        _map(measured, campaign)
        _loop(measured, campaign)
        if pushed:
            _label_studio(measured, campaign, pushed)
        return measured.rows


def _client() -> Any:
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    client.force_login(get_user_model().objects.get_or_create(username="lead", is_superuser=True, is_staff=True)[0])
    return client


def _pages(measured: Measured, campaign: Any) -> None:
    from django.contrib import admin
    from django.urls import reverse

    from thawloop.dashboard.views import PANELS

    client = _client()
    measured("page: campaigns", lambda: client.get(reverse("campaigns")))
    measured("page: campaign", lambda: client.get(reverse("campaign", args=[campaign.name])))
    for panel in PANELS:
        address = reverse("panel", args=[campaign.name, panel])
        measured(f"panel: {panel}", lambda address=address: client.get(address))
    measured("panel: curve", lambda: client.get(reverse("learning-curve", args=[campaign.name])))
    for model in sorted(model._meta.label_lower for model in admin.site._registry):
        app, name = model.split(".")
        if app in ("catalog", "labeling", "releases", "training"):
            address = reverse(f"admin:{app}_{name}_changelist")
            measured(f"admin: {name}", lambda address=address: client.get(address))


def _api(measured: Measured) -> None:
    client = _client()
    for name in ("tiles", "tasks", "annotations", "labels", "predictions", "campaigns", "batches", "imports", "models"):
        measured(f"api: {name} x 1,000", lambda name=name: client.get(f"/api/{name}/?page_size=1000"))


def _map(measured: Measured, campaign: Any) -> None:
    """The map tile in the middle of the campaign at every zoom; at the lowest it holds the whole campaign."""
    from django.contrib.gis.db.models import Extent
    from django.contrib.gis.db.models.functions import Transform
    from django.urls import reverse

    from thawloop.dashboard.vector_tiles import HALF_EXTENT

    area = campaign.regions.annotate(polar=Transform("geometry", 3413)).aggregate(extent=Extent("polar"))["extent"]
    x, y = (area[0] + area[2]) / 2, (area[1] + area[3]) / 2
    client = _client()
    for zoom in ZOOMS:
        side = 2 * HALF_EXTENT / 2**zoom
        place = int((x + HALF_EXTENT) // side), int((HALF_EXTENT - y) // side)
        address = reverse("map-tile", args=[campaign.name, zoom, *place])
        measured(f"map: zoom {zoom}", lambda address=address: client.get(address))


def _loop(measured: Measured, campaign: Any) -> None:
    from labeling.services import acquire
    from thawloop.core.jobs import run_inline
    from thawloop.releases.services import freeze_release
    from thawloop.training.selectors import CampaignState, explain_policy, outlook
    from thawloop.training.services.retrainings import apply_policies

    measured("policy: explain", lambda: explain_policy(CampaignState(campaign)))
    measured("policy: outlook", lambda: outlook(CampaignState(campaign)))
    measured("policy: one pass", apply_policies)
    job = acquire(campaign)
    done = measured("acquisition of 50", lambda: run_inline(job.pk), once=True)
    if done.state != "succeeded":
        raise SystemExit(f"acquisition failed: {done.error}")
    measured("release: freeze", lambda: freeze_release(campaign), once=True)
    measured("release: freeze, nothing new", lambda: freeze_release(campaign), once=True)


def _label_studio(measured: Measured, campaign: Any, pushed: int) -> None:
    """A push of new tasks, then what follows a promotion."""
    from benchmarks.scale_campaign import predict
    from labeling.labelstudio.preannotations import refresh_preannotations
    from labeling.labelstudio.push import push_tasks
    from labeling.models import AnnotationTask
    from thawloop.catalog.models import Tile
    from thawloop.registry.models import ModelVersion

    # Only some: Label Studio's own speed is not what grows with the campaign. Whatever became of them: they begin anew.
    tasks = AnnotationTask.objects.filter(campaign=campaign)
    if tasks.count() < pushed:
        raise SystemExit(f"the campaign has {tasks.count()} tasks, fewer than {pushed}: name a larger size")
    some = list(tasks.order_by("-created").values_list("pk", flat=True)[:pushed])
    tasks.update(state="withdrawn", ls_task_id=None)
    waiting = tasks.filter(pk__in=some)
    waiting.update(state="pending")
    measured(f"push of {pushed:,} tasks", lambda: push_tasks(campaign), once=True)
    version = ModelVersion.objects.create(campaign=campaign, number=2, name="scale-v2", path="x", checksum="1" * 64)
    predict(campaign, version, Tile.objects.filter(tasks__in=waiting))
    campaign.aliases.update(model_version=version)
    measured(f"refresh of {pushed:,} tasks", lambda: refresh_preannotations(campaign), once=True)


def table(results: dict[int, list[Row]]) -> str:
    """A Markdown table: what each part costs at each size, and how its time grows from the first to the last."""
    sizes = list(results)
    head = "| | " + " | ".join(f"{size:,} tiles: ms | queries | kB" for size in sizes) + " | growth |"
    lines = [head, "|---" + "|---:" * (3 * len(sizes) + 1) + "|"]
    for rows in zip(*results.values(), strict=True):
        cells = [f"{row['ms']:,.0f} | {row['queries']} | {'' if row['kb'] is None else format(row['kb'], ',.0f')}"
                 for row in rows]  # fmt: skip
        lines.append(f"| {rows[0]['part']} | {' | '.join(cells)} | {rows[-1]['ms'] / rows[0]['ms']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure each size in a process and a database of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 10_000], help="tiles (100000 takes minutes)")
    parser.add_argument(
        "--labelstudio",
        type=int,
        default=0,
        metavar="TASKS",
        help="push so many to a Label Studio, and refresh",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if options.json and len(options.sizes) == 1:
        print(json.dumps(measure(options.sizes[0], options.labelstudio)))
        return
    results = {}
    for size in options.sizes:
        command = [sys.executable, "-m", "benchmarks.scale", "--json", "--sizes", str(size)]
        command += ["--labelstudio", str(options.labelstudio)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        results[size] = json.loads(answer.stdout.splitlines()[-1])
    print(json.dumps(results) if options.json else table(results))


if __name__ == "__main__":
    main()
