"""What our management commands have in common."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from thawloop.campaigns.selectors import campaign_named
from thawloop.core.cli import ThawloopCommand
from thawloop.core.errors import Refused
from thawloop.core.models import Job

REPOSITORY = Path(__file__).resolve().parents[2]


class Example(ThawloopCommand):
    """A command for these tests."""

    def __init__(self, act) -> None:
        super().__init__()
        self.act = act

    def run(self, options):
        return self.act(self)


def result(act, **options) -> str:
    import io

    out = io.StringIO()
    call_command(Example(act), stdout=out, **options)
    return out.getvalue()


RESULT = {
    "tiles_made": 3,
    "share": 0.123456,
    "names": ["a", "b"],
    "nothing": [],
    "rounds": [{"round": 1, "ap50": 0.5}, {"round": 2, "ap50": None}],
}


def test_results_are_json_for_machines() -> None:
    assert json.loads(result(lambda _: RESULT, json=True)) == RESULT


def test_results_are_words_and_tables_for_people() -> None:
    text = result(lambda _: RESULT)
    assert "tiles made: 3" in text
    assert "share: 0.1235" in text
    assert "names: a, b" in text
    assert "nothing: none" in text
    assert "ap50" in text
    assert "[bold]" in result(lambda _: {"odd": "[bold]x"})


def test_a_refusal_is_one_sentence_and_exit_code_1() -> None:
    def refuse(_):
        raise Refused("a.tif has no CRS: assign one with gdal_edit.")

    with pytest.raises(CommandError, match=r"^a\.tif has no CRS: assign one with gdal_edit\.$") as caught:
        result(refuse)
    assert caught.value.returncode == 1


def test_a_bug_is_not_dressed_up_as_a_refusal() -> None:
    with pytest.raises(ZeroDivisionError):
        result(lambda _: 1 / 0)


@pytest.mark.django_db
def test_an_unknown_campaign_is_refused() -> None:
    with pytest.raises(CommandError, match="no campaign 'peel'"):
        result(lambda _: campaign_named("peel"))


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_exit_code_2_and_usage_for_wrong_arguments() -> None:
    ran = manage("worker", "--queue", "fast")
    assert ran.returncode == 2
    assert "invalid choice: 'fast'" in ran.stderr
    assert "usage:" in ran.stderr


def test_no_database_is_one_sentence_without_the_password() -> None:
    ran = manage("reconcile", DATABASE_URL="postgis://thawloop:secret@127.0.0.1:1/thawloop")
    assert ran.returncode == 1
    assert ran.stderr.strip().startswith("The database at 127.0.0.1:1 does not answer")
    assert len(ran.stderr.strip().splitlines()) == 1
    assert "secret" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_no_redis_is_one_sentence_when_a_worker_should_end() -> None:
    ran = manage("worker", "--burst", REDIS_URL="redis://127.0.0.1:1/0")
    assert ran.returncode == 1
    assert "Redis does not answer" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_database_that_was_not_migrated_is_said_to_be() -> None:
    ran = manage("reconcile")  # the tests migrate a database of their own, not this one
    assert ran.returncode == 1
    assert "manage.py migrate" in ran.stderr


@pytest.mark.django_db(transaction=True)
class TestFollowing:
    def test_without_a_worker_it_says_what_to_do_and_the_job_waits(self, job_of, live_redis, monkeypatch) -> None:
        monkeypatch.setattr("thawloop.core.cli.WORKER_TIMEOUT_SECONDS", 0.0)
        job = job_of(work)
        with pytest.raises(CommandError, match=r"manage.py worker --queue default.*--inline"):
            result(lambda command: {"state": command.follow(job).state})
        job.refresh_from_db()
        assert job.state == "queued"

    def test_without_redis_it_says_so(self, job_of, settings) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        job = job_of(work)
        with pytest.raises(CommandError, match=r"Redis does not answer.*--inline runs it here"):
            result(lambda command: {"state": command.follow(job).state})

    def test_inline_runs_it_here(self, job_of) -> None:
        job = job_of(work)
        assert "state: succeeded" in result(lambda command: {"state": command.follow(job, inline=True).state})

    def test_a_job_that_fails_is_a_refusal_with_its_sentence(self, job_of) -> None:
        job = job_of(refuse)
        with pytest.raises(CommandError, match="Label Studio said no"):
            result(lambda command: {"state": command.follow(job, inline=True).state})

    def test_detached_returns_at_once(self, job_of) -> None:
        job = job_of(work)
        assert "state: queued" in result(lambda command: {"state": command.follow(job, detach=True).state})
        assert Job.objects.get(pk=job.pk).state == "queued"


def work(job) -> dict:
    job.progress(0.5, "half")
    assert not connection.in_atomic_block
    return {}


def refuse(job) -> dict:
    raise Refused("Label Studio said no: renew the token.")


def test_a_refusal_is_one_line_whatever_it_quotes() -> None:
    assert str(Refused("a\nb\x1b[2Jc")) == "a b [2Jc"


def test_a_test_that_does_not_ask_for_the_database_gets_none() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Job.objects.exists()
