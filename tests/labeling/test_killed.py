"""Processes that are killed with SIGKILL between Label Studio and our database."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from labeling.labelstudio.client import Client
from labeling.labelstudio.push import push_tasks
from tests.labeling.build import build_campaign, build_tasks

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "a-long-secret"
PUSH_AND_DIE = """
import os, signal, sys
import django
django.setup()
from labeling.labelstudio import projects, push
from labeling.labelstudio.push import push_tasks
from thawloop.campaigns.models import Campaign

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

note = push._note

def die_after_import(campaign, noted, how):
    die() if how == "imported" else note(campaign, noted, how)

moments = {
    "project made": lambda: setattr(Campaign, "save", die),
    "webhook made": lambda: setattr(projects, "_ml_backend", die),
    "tasks imported": lambda: setattr(push, "_note", die_after_import),
    "tasks noted": lambda: setattr(push, "show", die),
}
moments[sys.argv[1]]()
push_tasks(Campaign.objects.get())
"""

pytestmark = [pytest.mark.labelstudio, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("moment", ["project made", "webhook made", "tasks imported", "tasks noted"])
def test_a_push_that_is_killed_is_finished_by_the_next_one(labelstudio, settings, moment):
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_WEBHOOK_SECRET, settings.ML_BACKEND_URL = SECRET, "http://127.0.0.1:9"
    campaign = build_campaign()
    pending = build_tasks(campaign, 3)
    parts = urlsplit(os.environ["DATABASE_URL"])
    environment = os.environ | {
        "DATABASE_URL": urlunsplit(parts._replace(path=f"/{connection.settings_dict['NAME']}")),
        "LABEL_STUDIO_URL": labelstudio.url,
        "LABEL_STUDIO_TOKEN": labelstudio.token,
        "THAWLOOP_WEBHOOK_SECRET": SECRET,
        "ML_BACKEND_URL": "http://127.0.0.1:9",
        "PYTHONPATH": f"{REPOSITORY / 'platform'}{os.pathsep}{REPOSITORY}",
    }
    killed = subprocess.run([sys.executable, "-c", PUSH_AND_DIE, moment], env=environment, cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    push_tasks(campaign)
    campaign.refresh_from_db()
    with Client() as client:
        projects = [found for found in client.projects() if f"Campaign {campaign.name} (" in found["description"]]
        ours = [found["id"] for found in projects if found["id"] >= campaign.ls_project_id]
        assert ours == [campaign.ls_project_id]
        assert len(client.webhooks(campaign.ls_project_id)) == 1
        titles = [view["data"]["title"] for view in client.views(campaign.ls_project_id)]
        assert len(titles) == len(set(titles)) == 2
        there = {found["data"]["platform_task_uuid"]: found["id"] for found in client.tasks(campaign.ls_project_id)}
        assert len(list(client.tasks(campaign.ls_project_id))) == 3
    assert there == {str(task.pk): campaign.tasks.get(pk=task.pk).ls_task_id for task in pending}
    assert set(campaign.tasks.values_list("state", flat=True)) == {"open"}
