"""Reading a campaign's project: what Label Studio holds is compared with what we know, page by page.

What is new is recorded as it is found. Removals are only collected, and done at the end: a few are done once Label
Studio confirms each; more of them wait until a lead accepts them, because a lost or restored database looks just like
people who delete.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import structlog
from django.db.models import Max
from django.utils import timezone

from labeling.labelstudio.client import PAGE_SIZE, Client
from labeling.labelstudio.config import NOTE
from labeling.labelstudio.errors import LabelStudioMissing, LabelStudioRefused, RemovalsUnconfirmed
from labeling.labelstudio.identity import own_project, stopped
from labeling.labelstudio.people import known_people
from labeling.labelstudio.push import TASK_ID
from labeling.labelstudio.submissions import read_version, record_payload
from labeling.models import Annotation, AnnotationTask
from labeling.selectors import misunderstood_annotations
from labeling.services.annotations import adopt_task, record_deletion, withdraw_task
from labeling.submission import AnnotationVersion
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused
from thawloop.core.models import AuditEntry

log = structlog.get_logger(__name__)
Json = dict[str, Any]

# Label Studio stamps a change before it commits it: look back so far.
OVERLAP = timedelta(seconds=60)
# A change is stamped by the clock that also dates the answers; a stamp further ahead of it is not trusted.
MAX_CLOCK_LEAD = timedelta(seconds=60)
# So many removals within so long are done without a lead's confirmation.
FEW = 3
REMOVAL_WINDOW = timedelta(minutes=1)
ACCEPT = "labeling.accept_removals"
NOTE_LENGTH = 1000


@dataclass
class SyncReport:
    """What a sync found and did."""

    seen: int = 0
    recorded: int = 0
    deleted: int = 0
    withdrawn: int = 0
    pushed: int = 0
    refreshed: int = 0
    bad: int = 0

    def __bool__(self) -> bool:
        return any([self.recorded, self.deleted, self.withdrawn, self.pushed, self.refreshed, self.bad])


@dataclass(frozen=True)
class _Removal:
    """A removal: a task, an annotation of it, or what an annotation said after the state in `payload`."""

    task: AnnotationTask
    ls_annotation_id: int | None = None
    payload: Json | None = None


class Pull:
    """One reading of a campaign's project. The reader holds the campaign's lock `sync`: the last reading is the truth.

    Args:
        campaign: It has a project.
        client: A connection to Label Studio.
        report: Where it is counted what was found and done.

    Raises:
        ProjectGone, ForeignProject: as `own_project`.
    """

    def __init__(self, campaign: Campaign, client: Client, report: SyncReport) -> None:
        self.campaign, self.client, self.report = campaign, client, report
        project = own_project(campaign, client)
        self.number, self.task_count = int(project["id"]), int(project["task_number"])
        self.began = client.server_time or timezone.now()
        self.problems: list[str] = []
        self._removals: list[_Removal] = []

    def changes(self, since: datetime | None) -> None:
        """Read the tasks that changed since then; all of them, and which are gone, if it is None."""
        known = {} if since else dict(in_label_studio(self.campaign).values_list("ls_task_id", "pk"))
        seen = self._read(self.client.tasks(self.number, changed_since=since))
        missing = [pk for number, pk in known.items() if number not in seen]
        self._removals += [_Removal(task) for task in self.campaign.tasks.filter(pk__in=missing).order_by("pk")]

    def some(self, numbers: Iterable[int]) -> None:
        """Read the tasks of these numbers, and which of them are gone."""
        wanted = sorted(set(numbers))
        for start in range(0, len(wanted), PAGE_SIZE):
            asked = wanted[start : start + PAGE_SIZE]
            seen = self._read(self.client.tasks(self.number, only=asked))
            gone = in_label_studio(self.campaign).filter(ls_task_id__in=set(asked) - seen)
            self._removals += [_Removal(task) for task in gone]

    @property
    def exceeds_limit(self) -> bool:
        """Whether there are more removals than are done without a lead's confirmation."""
        return len(self._removals) + (self._recent_removals() if self._removals else 0) > FEW

    def finish(self, accepted: int | None = None) -> None:
        """Do the removals.

        Args:
            accepted: How many removals a lead accepts.

        Raises:
            RemovalsUnconfirmed: There are too many, and not as many as were accepted. None was done.
        """
        if accepted != len(self._removals) and self.exceeds_limit:
            raise stopped(self.campaign, self._unconfirmed(), len(self._removals))
        for removal in self._removals:
            if removal.payload is not None:
                self._record(removal.task, removal.payload, self._people([removal.payload]))
            elif removal.ls_annotation_id is not None:
                if not self._holds_annotation(removal.task, removal.ls_annotation_id):
                    record_deletion(removal.task, removal.ls_annotation_id)
                    self.report.deleted += 1
            elif not self._is_task(removal.task, removal.task.ls_task_id):
                withdraw_task(removal.task)
                self.report.withdrawn += 1

    def _read(self, found: Iterable[Json]) -> set[int]:
        seen: set[int] = set()
        for page in _pages(found):
            self._read_page(page)
            seen |= {task["id"] for task in page}
        self.report.seen += len(seen)
        return seen

    def _read_page(self, page: list[Json]) -> None:
        """Record what the tasks of a page hold, in as many queries for a hundred unchanged ones as for one."""
        ours = self._tasks_of(page)
        known: dict[UUID, dict[int, Annotation]] = {}
        newest = Annotation.objects.filter(
            task__in=ours, ls_generation=self.campaign.ls_generation, superseded_by__isnull=True
        )
        for row in newest.defer("problems", "mended"):
            known.setdefault(row.task_id, {})[row.ls_annotation_id] = row
        people = self._people(payload for found in page for payload in _annotations(found))
        pairs = [(ours[key], found) for found in page if (key := _our_id(found)) in ours]
        for task, found in pairs:
            if task.state in (AnnotationTask.State.PENDING, AnnotationTask.State.WITHDRAWN):
                adopt_task(task, found["id"])
                task.ls_task_id = found["id"]
            self._compare(task, found, known.get(task.pk, {}), people)
        self._show_problems(pairs)

    def _tasks_of(self, page: list[Json]) -> dict[UUID, AnnotationTask]:
        wanted = [key for found in page if (key := _our_id(found))]
        return {task.pk: task for task in self.campaign.tasks.filter(pk__in=wanted)}

    def _compare(self, task: AnnotationTask, found: Json, known: dict[int, Annotation], people: dict[int, str]) -> None:
        versions = {prediction["id"]: prediction.get("model_version") for prediction in found.get("predictions") or []}
        there = set()
        for payload in _annotations(found):
            there.add(payload.get("id"))
            payload.setdefault("prediction", {"model_version": versions.get(payload.get("parent_prediction"))})
            try:
                version = read_version(payload)
            except Refused as error:
                self._refuse(task, str(error))
                continue
            row = known.get(version.number)
            if row is not None and version.is_recorded_by(row):
                continue
            if version.updated > self.began + MAX_CLOCK_LEAD:
                self._refuse(
                    task,
                    f"Annotation {version.number} is of {version.updated:%Y-%m-%d %H:%M:%S} UTC, but Label "
                    f"Studio's clock says {self.began:%Y-%m-%d %H:%M:%S}: it is not recorded before that time.",
                )
            elif row is not None and self._is_reversion(version, row):
                self._removals.append(_Removal(task, version.number, payload))
            else:
                self._record(task, payload, people)
        if found["id"] == task.ls_task_id:  # a copy of the task may lack what the task itself has
            standing = {number for number, row in known.items() if row.kind != Annotation.Kind.DELETED}
            self._removals += [_Removal(task, number) for number in sorted(standing - there)]

    def _is_reversion(self, version: AnnotationVersion, row: Annotation) -> bool:
        """Whether Label Studio holds an older state than we do. A row dated in the future is not trusted either."""
        standing = row.kind != Annotation.Kind.DELETED
        return standing and version.updated < row.ls_updated_at <= self.began + MAX_CLOCK_LEAD

    def _record(self, task: AnnotationTask, payload: Json, people: dict[int, str]) -> None:
        record_payload(task, payload, people=people, held_now=True)
        self.report.recorded += 1

    def _people(self, annotations: Iterable[Json]) -> dict[int, str]:
        return known_people(annotations, self.client, self.campaign.ls_mark)

    def _refuse(self, task: AnnotationTask, why: str) -> None:
        self.report.bad += 1
        self.problems.append(why)
        log.warning("annotation not recorded", campaign=self.campaign.name, task=str(task.pk), why=why)

    def _show_problems(self, pairs: list[tuple[AnnotationTask, Json]]) -> None:
        """Show in Label Studio which submissions were not understood: above the pictures, and in a tab of its own."""
        rows = misunderstood_annotations(self.campaign).filter(
            task__in=[task.pk for task, _ in pairs], ls_generation=self.campaign.ls_generation
        )
        problems: dict[UUID, list[str]] = {}
        for task_id, sentences in rows.order_by("id").values_list("task_id", "problems"):
            problems.setdefault(task_id, []).extend(sentences)
        for task, found in pairs:
            note = _note(problems.get(task.pk, []))
            if (found["data"].get(NOTE) or "") != note:
                try:
                    self.client.change_task(found["id"], found["data"] | {NOTE: note})
                except LabelStudioRefused as error:  # it was deleted meanwhile: the next sync sees that
                    log.warning("problems are not shown to annotators", task=str(task.pk), why=str(error))

    def _holds_annotation(self, task: AnnotationTask, number: int) -> bool:
        try:
            holder = self.client.annotation(number).get("task")
        except LabelStudioMissing:
            return False
        return self._is_task(task, holder)

    def _is_task(self, task: AnnotationTask, number: int | None) -> bool:
        """Whether what has this number in Label Studio is the task, or a copy of it."""
        if number is None:
            return False
        try:
            found = self.client.task(number)
        except LabelStudioMissing:
            return False
        return found.get("project") == self.number and _our_id(found) == task.pk

    def _recent_removals(self) -> int:
        """How many tasks lost something within `REMOVAL_WINDOW`, since a lead last accepted removals."""
        accepted = AuditEntry.objects.filter(
            action=ACCEPT, object_type=self.campaign._meta.label_lower, object_id=str(self.campaign.pk)
        ).aggregate(last=Max("created"))["last"]
        since = max(filter(None, [accepted, timezone.now() - REMOVAL_WINDOW]))
        deleted = Annotation.objects.filter(
            task__campaign=self.campaign, kind=Annotation.Kind.DELETED, created__gt=since
        ).values_list("task_id", flat=True)
        withdrawn = self.campaign.tasks.filter(state=AnnotationTask.State.WITHDRAWN, updated__gt=since)
        return len(set(deleted) | set(withdrawn.values_list("pk", flat=True)))

    def _unconfirmed(self) -> RemovalsUnconfirmed:
        count, name = len(self._removals), self.campaign.name
        tasks = sum(removal.ls_annotation_id is None for removal in self._removals)
        older = sum(removal.payload is not None for removal in self._removals)
        parts = [(tasks, "tasks are gone"), (count - tasks - older, "annotations are gone")]
        parts.append((older, "annotations are older than what is known"))
        what = " and ".join(f"{number:,} {words}" for number, words in parts if number)
        return RemovalsUnconfirmed(
            f"In Label Studio's project {self.number} of campaign {name}, {what}: nothing was taken back, and the "
            "exchange waits for a lead. If it was done on purpose, accept it: `manage.py sync --campaign "
            f"{name} --accept-removals {count}`. If Label Studio's database was restored from a backup, restore a "
            f"newer one, or go on in a new project: `manage.py sync --campaign {name} --new-project`.",
            count,
        )


def in_label_studio(campaign: Campaign) -> Any:
    """The tasks that Label Studio should have."""
    return campaign.tasks.filter(ls_task_id__isnull=False).exclude(state=AnnotationTask.State.WITHDRAWN)


def _pages(found: Iterable[Json]) -> Iterator[list[Json]]:
    rows = iter(found)
    while page := list(islice(rows, PAGE_SIZE)):
        yield page


def _annotations(found: Json) -> list[Json]:
    return [payload for payload in found.get("annotations") or [] if isinstance(payload, dict)]


def _our_id(found: Json) -> UUID | None:
    """Our id of a task in Label Studio."""
    identifier = (found.get("data") or {}).get(TASK_ID)
    try:
        return UUID(identifier) if isinstance(identifier, str) else None
    except ValueError:
        return None


def _note(problems: list[str]) -> str:
    if not problems:
        return ""
    return f"This submission does not count yet. Correct it and press Update. {' '.join(problems)}"[:NOTE_LENGTH]
