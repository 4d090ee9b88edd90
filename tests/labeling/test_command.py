"""`manage.py sync`."""

import json

import pytest
from django.core.management import CommandError, call_command

from labeling.models import Annotation
from tests.labeling.build import build_tasks


def test_sync_pushes_and_says_what_it_did(campaign, labelstudio, settings, capsys):
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = labelstudio.url, labelstudio.token
    settings.THAWLOOP_WEBHOOK_SECRET, settings.ML_BACKEND_URL = "a-long-secret", "http://127.0.0.1:9"
    build_tasks(campaign, 2)
    call_command("sync", campaign="peel", json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pushed"] == 2
    call_command("sync", campaign="peel", full=True)
    assert "pushed: 0" in capsys.readouterr().out


def test_label_studio_down_is_one_sentence_and_exit_code_one(campaign, settings):
    settings.LABEL_STUDIO_URL, settings.LABEL_STUDIO_TOKEN = "http://127.0.0.1:9", "x"
    settings.THAWLOOP_WEBHOOK_SECRET = "a-long-secret"
    build_tasks(campaign, 1)
    with pytest.raises(CommandError, match="cannot be reached") as refusal:
        call_command("sync", campaign="peel")
    assert refusal.value.returncode == 1
    assert not Annotation.objects.exists()


def test_an_unknown_campaign_is_refused(campaign):
    with pytest.raises(CommandError, match="There is no campaign 'pell'"):
        call_command("sync", campaign="pell")
