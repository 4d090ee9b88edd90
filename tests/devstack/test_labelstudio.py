"""The real Label Studio as our stack starts it: who may enter, what it refuses, that nothing leaves the machine."""

from pathlib import Path

import httpx
import psycopg
import pytest

from devstack.labelstudio import LabelStudioServer
from devstack.stack import LocalStack

pytestmark = pytest.mark.labelstudio


@pytest.fixture
def api(labelstudio: LabelStudioServer) -> httpx.Client:
    headers = {"Authorization": f"Token {labelstudio.token}"}
    return httpx.Client(base_url=f"{labelstudio.url}/api", headers=headers, timeout=60)


def test_token_opens_the_api_and_a_guess_does_not(labelstudio: LabelStudioServer, api: httpx.Client) -> None:
    assert api.get("/current-user/whoami").json()["email"] == labelstudio.username
    guess = httpx.get(f"{labelstudio.url}/api/projects/", headers={"Authorization": "Token " + 40 * "0"})
    assert guess.status_code == 401


def test_people_log_in_with_the_generated_password(labelstudio: LabelStudioServer) -> None:
    with httpx.Client(base_url=labelstudio.url, timeout=60) as browser:
        browser.get("/user/login/")
        form = {"email": labelstudio.username, "password": labelstudio.password}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        answer = browser.post("/user/login/", data=form)
        assert answer.status_code == 302
        assert browser.get("/api/current-user/whoami").status_code == 200


def test_strangers_cannot_sign_up(labelstudio: LabelStudioServer) -> None:
    with httpx.Client(base_url=labelstudio.url, timeout=60) as browser:
        browser.get("/user/signup/")
        form = {"email": "stranger@example.org", "password": "a-long-password"}
        form["csrfmiddlewaretoken"] = browser.cookies["csrftoken"]
        assert browser.post("/user/signup/", data=form).status_code in (401, 403)


def test_webhooks_may_go_to_this_machine_but_not_to_cloud_metadata(api: httpx.Client) -> None:
    config = '<View><Image name="i" value="$i"/><Choices name="c" toName="i"><Choice value="x"/></Choices></View>'
    project = api.post("/projects/", json={"title": "webhooks", "label_config": config}).json()["id"]
    hook = {"project": project, "send_for_all_actions": True, "send_payload": True}
    assert api.post("/webhooks/", json={**hook, "url": "http://127.0.0.1:9/x"}).status_code == 201
    task = api.post(f"/projects/{project}/import?return_task_ids=true", json=[{"i": "http://127.0.0.1:9/i.png"}])
    assert task.status_code == 201  # the webhook's port is closed, which must not stand in the way
    backend = {"project": project, "title": "m", "url": "http://169.254.169.254/latest"}
    assert api.post("/ml/", json=backend).status_code in (400, 403)


def test_other_origins_are_not_let_in(labelstudio: LabelStudioServer) -> None:
    answer = httpx.get(f"{labelstudio.url}/api/version", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert httpx.get(f"{labelstudio.url}/api/version", headers={"Host": "evil.example"}).status_code == 400


def test_its_tables_are_out_of_the_platforms_reach_and_the_other_way_round(
    labelstudio: LabelStudioServer, local_stack: LocalStack
) -> None:
    ours = local_stack.database_url.replace("postgis:", "postgresql:")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(ours.rpartition("/")[0] + "/labelstudio")
    password = local_stack.secrets.get("postgres-labelstudio")
    theirs = ours.rpartition("@")[2]
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(f"postgresql://labelstudio:{password}@{theirs}")


def test_a_second_call_finds_the_same_server(labelstudio: LabelStudioServer, local_stack: LocalStack) -> None:
    assert local_stack.start_labelstudio() == labelstudio
    with LocalStack(local_stack.root, durable=False) as second:
        assert second.start_labelstudio() == labelstudio
    assert httpx.get(f"{labelstudio.url}/health").status_code == 200


def test_its_password_and_token_are_not_in_its_log(labelstudio: LabelStudioServer, local_stack: LocalStack) -> None:
    log = Path(local_stack.logs / "labelstudio.log").read_text()
    assert labelstudio.token not in log
    assert labelstudio.password not in log
