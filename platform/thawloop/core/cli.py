"""What all our management commands have in common: results for people or machines, refusals, progress, exit codes."""

import getpass
import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError, ProgrammingError, connection
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from thawloop.core.context import acting
from thawloop.core.errors import Refused, Unavailable
from thawloop.core.jobs import run_inline, wait_for
from thawloop.core.jobs.queue import RedisUnavailable
from thawloop.core.jobs.worker import live_workers
from thawloop.core.jsonable import jsonable
from thawloop.core.models import Job

INLINE_PAUSE_SECONDS = 2.0
WORKER_TIMEOUT_SECONDS = 10.0

Report = Callable[[float, str], None]


class ThawloopCommand(BaseCommand):
    """A command that calls a service and shows its result.

    Subclasses write `run(options) -> dict`, and `add_arguments(parser)` as usual. Exit codes: 0 done; 1 refused or
    failed, with one sentence on stderr; 2 usage. Progress goes to stderr, and only to a terminal; the result goes to
    stdout, in words or (`--json`) as one JSON object.
    """

    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Django's parser with `--json`."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
        return parser

    def run(self, options: dict[str, Any]) -> dict[str, Any] | None:
        """Do it.

        Raises:
            Refused: it cannot be done; the sentence is shown and the exit code is 1.
        """
        raise NotImplementedError

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Django's, but on the command line a refusal is its sentence and nothing else."""
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            if not self._called_from_command_line:  # type: ignore[attr-defined]
                raise
            self.stderr.write(str(error))
            sys.exit(error.returncode)

    def handle(self, *args: Any, **options: Any) -> None:
        """Call `run` as the person at the keyboard and show what it returns."""
        command = type(self).__module__.rsplit(".", 1)[-1]
        try:
            with acting(name=f"{getpass.getuser()} (manage.py {command})"):
                result = jsonable(self.run(options) or {})
        except Refused as refusal:
            raise CommandError(str(refusal), returncode=1) from refusal
        except (OperationalError, InterfaceError) as error:
            raise CommandError(_database_sentence(error), returncode=1) from error
        except ProgrammingError as error:
            if "does not exist" not in str(error):
                raise
            raise CommandError(
                "The database lacks a table or column: run `python manage.py migrate` first.", returncode=1
            ) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped by hand.", returncode=130) from None
        if options.get("json"):
            self.stdout.write(json.dumps(result))
        else:
            self.show(result)

    def show(self, result: dict[str, Any]) -> None:
        """Show the result to a person: one line per value, a table per list of rows. Override to say it better."""
        console = Console(file=cast(IO[str], self.stdout), highlight=False, soft_wrap=True)
        for name, value in result.items():
            label = name.replace("_", " ")
            if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
                console.print(_table(label, value))
            elif isinstance(value, list):
                console.print(f"{label}: {', '.join(map(_text, value)) or 'none'}", markup=False)
            else:
                console.print(f"{label}: {_text(value)}", markup=False)

    @contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """A progress bar on a terminal (nothing elsewhere); yields `report(fraction, message)`."""
        console = Console(stderr=True)
        if not console.is_terminal:
            yield _no_report
            return
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        with Progress(*columns, TextColumn("[dim]{task.fields[message]}"), console=console, transient=True) as bar:
            task = bar.add_task(title, total=1.0, message="")

            def report(fraction: float, message: str = "") -> None:
                bar.update(task, completed=fraction, message=message)

            yield report

    def add_follow_arguments(self, parser: ArgumentParser) -> None:
        """`--inline` and `--detach`, for commands that start a job and follow it."""
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--inline", action="store_true", help="do the work in this process instead of in a worker")
        how.add_argument("--detach", action="store_true", help="leave the work to the workers and return at once")

    def follow(self, job: Job, *, inline: bool = False, detach: bool = False) -> Job:
        """Show a job's progress until it has ended well; Ctrl-C stops watching, not the job.

        Args:
            job: A job that is committed.
            inline: Run it in this process.
            detach: Do not wait at all.

        Raises:
            Refused: it failed or was cancelled.
            Unavailable: no worker serves its queue.
        """
        if detach:
            return job
        with self.progress(job.function.rsplit(".", 1)[-1]) as report:
            if inline:
                job = _run_here(job, report)
            else:
                _require_worker(job)
            job = wait_for(job, on_progress=lambda row: report(row.progress, row.progress_message))
        if job.state != Job.State.SUCCEEDED:
            raise Refused(job.error or f"Job {job.pk} was {job.state}.")
        return job


def _no_report(fraction: float, message: str = "") -> None:
    """Show nothing: there is no terminal."""


def _run_here(job: Job, report: Report) -> Job:
    """Run all attempts of the job in this process, unless a worker has taken it."""
    job.refresh_from_db()
    while job.state == Job.State.QUEUED:
        job = run_inline(job.pk, report)
        if job.state == Job.State.QUEUED:
            print(job.error, file=sys.stderr)  # noqa: T201 - a person is waiting
            time.sleep(INLINE_PAUSE_SECONDS)
    return job


def _require_worker(job: Job) -> None:
    """Wait briefly for a worker, which may be restarting."""
    deadline = time.monotonic() + WORKER_TIMEOUT_SECONDS
    while not _has_worker(job):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"No worker serves the queue {job.queue!r}, so job {job.pk} waits there: start one with `python"
                f" manage.py worker --queue {job.queue}`, or run this again with --inline."
            )
        time.sleep(0.5)


def _has_worker(job: Job) -> bool:
    job.refresh_from_db()
    if job.state != Job.State.QUEUED:
        return True
    try:
        return live_workers(job.queue) > 0
    except RedisUnavailable as error:
        raise Unavailable(f"{error} Job {job.pk} waits until then; --inline runs it here.") from error


def _database_sentence(error: Exception) -> str:
    where = connection.settings_dict
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"The database at {where['HOST'] or 'localhost'}:{where['PORT'] or 5432} does not answer ({reason}): start it"
        " (`make serve`), or set DATABASE_URL to where it is."
    )


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(name.replace("_", " ") for name in names), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return str(value)
