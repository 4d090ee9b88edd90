"""The guided run: the whole loop, round after round, on servers and workers that run already.

Nothing is done here that a person could not do: services ask for jobs, workers do them, annotators use Label Studio.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from demo.annotators import Annotator, Person
from demo.hands import Habits
from demo.screen import Screen, StepReport
from demo.summary import Summary, champion_of, rounds_of
from demo.truth import Truth
from devstack.secrets import SecretStore
from labeling.labelstudio.projects import ensure_project
from labeling.labelstudio.sync import sync
from labeling.models import AnnotationTask
from labeling.selectors import unlabelled_tiles
from labeling.services import acquire
from thawloop.campaigns.models import Campaign
from thawloop.core.errors import Refused
from thawloop.core.foreign import one_line
from thawloop.core.jobs import wait_for
from thawloop.core.models import Job
from thawloop.core.storage import artifact
from thawloop.releases.models import Release
from thawloop.releases.services import export
from thawloop.setup.services import set_up_campaign
from thawloop.setup.spec import CampaignSpec
from thawloop.training.models import Retraining
from thawloop.training.selectors import CampaignState, active_retraining, explain_policy
from thawloop.training.services import start_retraining

POLL_SECONDS = 0.5
ARRIVAL_SECONDS = 60.0  # webhooks take milliseconds, the reconciler seconds
POLICY_SECONDS = 30.0
STEP_SECONDS = 3600.0

Task = AnnotationTask.State


class DemoFailed(Refused):
    """The guided run cannot continue; the sentence says why and which log has the details."""


class _Cancelled(Exception):
    """Somebody cancelled on the page what the run waited for; it goes on without it."""


class Loop:
    """A campaign, its annotators, and rounds of the loop.

    Args:
        spec: What the campaign file says.
        screen: Shows what is going on.
        folder: For exports.
    """

    def __init__(self, spec: CampaignSpec, screen: Screen, folder: Path) -> None:
        self.spec = spec
        self.screen = screen
        self.folder = folder
        self.logs = Path(settings.VAR_DIR) / "logs"
        self.campaign: Campaign  # from the first step on
        self._started, self._began = time.monotonic(), timezone.now()

    def run(self, rounds: int) -> None:
        """Set the campaign up, or take it as an earlier run left it, and do so many rounds more.

        Raises:
            Refused: something cannot be done; the sentence names the log that has the details.
        """
        self._set_up()
        with ExitStack() as open_accounts:
            people = [open_accounts.enter_context(self._annotator(n)) for n in range(2)]
            with self.screen.step("Annotators sign in to Label Studio"):
                for annotator in people:
                    annotator.sign_in(settings.LABEL_STUDIO_TOKEN)
            for _ in range(rounds):
                if not self._round(people):
                    self.screen.say("Every training tile has been annotated: there is nothing left to choose from.")
                    break

    def check(self) -> None:
        """Refuse to call the run a success if a job failed in it, also where another one mended that later.

        Raises:
            DemoFailed: naming each that failed, and why.
        """
        failed = Job.objects.filter(created__gte=self._began, state=Job.State.FAILED).order_by("created")
        if words := [f"{job.title}: {one_line(job.error).rstrip('.')}" for job in failed]:
            raise DemoFailed(f"{len(words)} of its jobs failed. {'. '.join(words)}. See the logs in {self.logs}.")

    def _set_up(self) -> None:
        with self.screen.step("Campaign") as report:
            made = set_up_campaign(self.spec)
            self.campaign = made.campaign
            tiles = ", ".join(f"{count} {split}" for split, count in sorted(made.tiles.items()))
            report(None, f"{'new' if made.created else 'as it was left'}; tiles: {tiles}")
        held_back = [labels for labels in self.spec.labels if labels.role == "simulate"]
        self.truth = Truth(held_back)
        with self.screen.step("Label Studio project"):
            ensure_project(self.campaign)
            self.campaign.refresh_from_db()

    def _annotator(self, number: int) -> Annotator:
        demo = self.spec.demo
        name = ("anna", "boris")[number]
        habits = Habits(
            wobble=demo.wobble_pixels * (0.8, 1.2)[number],
            generosity=(0.3, -0.2)[number],
            miss_small=demo.miss_small,
            miss_large=demo.miss_large,
        )
        password = SecretStore(Path(settings.VAR_DIR) / "secrets").get(f"annotator-{name}")
        person = Person(f"{name}@thawloop.local", password, habits, demo.skip)
        seed = demo.seed * 1000 + number + 7 * self.campaign.tasks.count()  # not the same mistakes in every run
        return Annotator(settings.LABEL_STUDIO_URL, person, self.truth, self.campaign, seed)

    def _round(self, people: list[Annotator]) -> bool:
        """One turn: choose, annotate, learn; False when no tile is left."""
        number = self.campaign.retrainings.count() + 1
        self.screen.heading(f"Round {number}")
        try:
            if active_retraining(self.campaign) is None:
                if not self._choose():
                    return False
                self._annotate(people)
            self._learn()
        except _Cancelled as cancelled:
            self.screen.say(f"  {cancelled} The demo goes on.")
        return True

    def _choose(self) -> bool:
        waiting = self._tasks(Task.PENDING, Task.OPEN)
        if not waiting.exists() and not unlabelled_tiles(self.campaign).exists():
            return False
        with self.screen.step("Tiles are chosen and given to Label Studio") as report:
            if not waiting.exists():
                job = wait_for(acquire(self.campaign), STEP_SECONDS, _showing(report))
                if job.state == Job.State.CANCELLED:
                    raise _Cancelled("Choosing tiles was cancelled.")
                if job.state != Job.State.SUCCEEDED:
                    raise self._failed("Choosing tiles", job.error, "worker-default")
            total = waiting.count()
            self._wait(
                "Label Studio was given no tasks",
                lambda: not self._tasks(Task.PENDING).exists(),
                "worker-default",
                STEP_SECONDS,
            )
            report(1.0, f"{total} tiles")
        return True

    def _annotate(self, people: list[Annotator]) -> None:
        total = self._tasks(Task.OPEN).count()
        with self.screen.step("Annotators correct what the model drew") as report:
            done: set[int] = set()  # a task that one skips is offered to the other
            counts = {"kept": 0, "mended": 0, "added": 0, "struck_out": 0}
            while active := [submission for person in people if (submission := person.do_next()) is not None]:
                done |= {submission.task for submission in active}
                for name in counts:
                    counts[name] += sum(getattr(submission.correction, name) for submission in active)
                words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
                report(min(len(done) / max(total, 1), 1.0), f"{len(done)} of {total} tiles: {words}")
        with self.screen.step("Annotations become labels"):
            if not self._poll(lambda: not self._tasks(Task.OPEN).exists(), ARRIVAL_SECONDS):
                sync(self.campaign, full=True)
                if left := self._tasks(Task.OPEN).count():
                    raise DemoFailed(f"{left} tasks were not annotated; see {self.logs / 'labelstudio.log'}.")

    def _learn(self) -> None:
        with self.screen.step("Retraining") as report:
            # The reconciler asks the policy; skipped tasks can leave it a tile short.
            if not self._poll(lambda: active_retraining(self.campaign) is not None, self._policy_patience()):
                start_retraining(self.campaign, reason="All tasks of the round are done.")
            retraining = active_retraining(self.campaign) or self.campaign.retrainings.latest("number")
            while retraining.state not in Retraining.FINISHED:
                report(*self._progress(retraining))
                time.sleep(POLL_SECONDS)
                retraining.refresh_from_db()
            if retraining.state == Retraining.State.CANCELLED:
                report(1.0, "cancelled")
                raise _Cancelled(f"Retraining {retraining.number} was cancelled: its tiles wait for the next one.")
            if retraining.state != Retraining.State.DONE:
                raise self._failed(f"Retraining {retraining.number}", retraining.error, "worker-gpu")
            report(1.0, retraining.verdict)

    def _policy_patience(self) -> float:
        return POLICY_SECONDS if explain_policy(CampaignState(self.campaign)).due else 2 * POLL_SECONDS

    def _progress(self, retraining: Retraining) -> tuple[float | None, str]:
        mine = Q(key__startswith=f"retraining:{retraining.pk}") | Q(key__startswith=f"predict:{self.campaign.pk}:")
        job = Job.objects.filter(mine, state__in=Job.ACTIVE).order_by("-state", "-created").first()
        if job is None:
            return None, retraining.state
        return job.progress, f"{retraining.state}: {job.progress_message or job.state}"

    def summary(self) -> Summary | None:
        """What the rounds of this run and of earlier ones brought; the newest release is exported beside it.

        None where not even the campaign could be set up.
        """
        if not hasattr(self, "campaign"):
            return None
        rounds = rounds_of(self.campaign)
        name, release_path = champion_of(self.campaign)
        latest = Release.objects.filter(campaign=self.campaign, state=Release.State.READY).first()
        if latest is not None:
            with self.screen.step("Export of the newest release") as report:
                self.folder.mkdir(parents=True, exist_ok=True)
                out = self.folder / f"{self.campaign.name}-{latest.version}.gpkg"
                report(None, str(export(latest, "gpkg", out, force=True)))
        project = f"{settings.LABEL_STUDIO_PUBLIC_URL}/projects/{self.campaign.ls_project_id}/data"
        urls = {"thawloop": settings.THAWLOOP_URL, "label_studio": settings.LABEL_STUDIO_PUBLIC_URL, "project": project}
        seconds = round(time.monotonic() - self._started, 1)
        return Summary(seconds, rounds, str(artifact(release_path)) if release_path else "", name, urls)

    def _tasks(self, *states: str) -> QuerySet[AnnotationTask]:
        return self.campaign.tasks.filter(state__in=states)

    def _wait(self, complaint: str, ready: Callable[[], bool], log: str, seconds: float) -> None:
        if not self._poll(ready, seconds):
            raise DemoFailed(f"{complaint} within {seconds:.0f} s; see {self.logs / log}.log.")

    def _poll(self, ready: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _failed(self, what: str, error: str, log: str) -> DemoFailed:
        return DemoFailed(f"{what} failed: {error.rstrip('.')}. See {self.logs / log}.log.")


def _showing(report: StepReport) -> Callable[[Job], None]:
    return lambda job: report(job.progress, job.progress_message)
