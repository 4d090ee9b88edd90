"""Request ids: in answers, logs, audit entries and the jobs that a request causes."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token

from thawloop.core.api import JobViewSet
from thawloop.core.models import AuditEntry, Job


def test_an_answer_carries_the_id_it_was_asked_under(client: Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"})["X-Request-ID"] == "abc-1.2_3"


@pytest.mark.parametrize("hostile", ["", "a b", "x" * 65, "a;b", "<script>"])
def test_a_harmful_id_is_replaced(client: Client, hostile: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": hostile})
    assert re.fullmatch(r"[0-9a-f-]{32,36}", answer["X-Request-ID"])


@pytest.mark.django_db
def test_who_comes_with_a_token_is_the_one_who_acts(client: Client, member: Callable[[str], User], rf) -> None:
    from thawloop.core.middleware import RequestContextMiddleware

    lead = member("lead")
    job = Job.objects.create(function="thawloop.x", key="k")
    view = JobViewSet.as_view({"post": "cancel"})
    request = rf.post("/", headers={"Authorization": f"Token {Token.objects.create(user=lead).key}"})
    from django.contrib.auth.models import AnonymousUser

    request.user = AnonymousUser()
    answer = RequestContextMiddleware(lambda request: view(request, pk=str(job.pk)))(request)
    assert answer.status_code == 200
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.request_id) == (lead, answer["X-Request-ID"])


@pytest.mark.parametrize("as_json", [True, False])
def test_the_log_has_one_form_for_everybody(as_json: bool) -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import logging, logging.config, structlog
from thawloop.core.logs import logging_config
logging.config.dictConfig(logging_config(json_lines={as_json}, level="INFO"))
structlog.contextvars.bind_contextvars(request_id="r-1")
structlog.get_logger("ours").info("tiles made", count=3)
logging.getLogger("a.library").warning("careful with %s", "this")
logging.getLogger("a.library").debug("noise")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("ours").exception("went wrong")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = ran.stderr.splitlines()
    if as_json:
        ours, library, error = map(json.loads, lines)
        assert (ours["event"], ours["count"], ours["request_id"], ours["level"]) == ("tiles made", 3, "r-1", "info")
        assert (library["event"], library["request_id"], library["logger"]) == ("careful with this", "r-1", "a.library")
        assert "ZeroDivisionError" in json.dumps(error["exception"])
    else:
        assert "tiles made" in lines[0]
        assert "request_id=r-1" in lines[0]
        assert "careful with this" in lines[1]
        assert "Traceback" in ran.stderr
    assert "noise" not in ran.stderr


@pytest.mark.django_db
def test_every_line_that_a_job_logs_names_the_job(job_of, caplog: pytest.LogCaptureFixture) -> None:
    from thawloop.core.jobs import run_inline

    def talk(job) -> None:
        job.log.info("half way")
        logging.getLogger("a.library").warning("careful")

    with caplog.at_level("INFO"):
        job = run_inline(job_of(talk).pk)
    said = next(record.msg for record in caplog.records if "half way" in str(record.msg))
    assert (said["job_id"], said["job"], said["attempt"]) == (str(job.pk), "talk", 1)
