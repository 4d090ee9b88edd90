"""Passwords and tokens: every way to log in, guessed, slowed down, expired, for reading only."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from rest_framework.authtoken.models import Token

from thawloop.core.errors import Refused
from thawloop.core.models import ApiToken, AuditEntry, Job, LoginFailure
from thawloop.core.services import make_token

pytestmark = pytest.mark.django_db
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def quick_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser("boss", password=PASSWORD)


def log_in(path: str, name: str, password: str, address: str = "192.0.2.1") -> Any:
    form = {"username": name, "password": password, "next": "/"}
    return Client().post(path, form, REMOTE_ADDR=address)


def succeeded(answer: Any) -> bool:
    return answer.status_code == 302 or (answer.status_code == 200 and b'"token"' in answer.content)


def later(**time: float) -> None:
    """Let time pass since the failures."""
    for row in LoginFailure.objects.all():
        LoginFailure.objects.filter(pk=row.pk).update(last=row.last - timedelta(**time))


@pytest.mark.parametrize("path", ["/login/", "/admin/login/", "/api/token/"])
def test_after_failures_even_the_right_password_has_to_wait(boss: User, path: str) -> None:
    for _ in range(5):
        assert log_in(path, "boss", "wrong").status_code in (200, 400)
    too_soon = log_in(path, "boss", PASSWORD)
    assert too_soon.status_code == 429
    assert int(too_soon["Retry-After"]) == 1
    assert b"wait 1 s" in too_soon.content
    assert succeeded(log_in(path, "boss", PASSWORD, address="192.0.2.99"))  # its owner is elsewhere
    later(seconds=2)
    assert succeeded(log_in(path, "boss", PASSWORD))
    assert log_in(path, "boss", "wrong").status_code in (200, 400)  # and starts anew


def test_each_further_failure_doubles_the_wait_up_to_a_quarter_of_an_hour(boss: User) -> None:
    waits = []
    for _ in range(16):
        answer = log_in("/login/", "boss", "wrong")
        if answer.status_code == 429:
            waits.append(int(answer["Retry-After"]))
            later(seconds=waits[-1])
            log_in("/login/", "boss", "wrong")
    assert waits[:5] == [1, 2, 4, 8, 16]
    LoginFailure.objects.update(failures=1000, last=timezone.now())
    assert 890 <= int(log_in("/login/", "boss", PASSWORD)["Retry-After"]) <= 900
    later(hours=2)
    assert succeeded(log_in("/login/", "boss", PASSWORD))


def test_one_address_cannot_try_many_names_and_many_addresses_cannot_try_one(boss: User) -> None:
    for number in range(20):
        assert log_in("/login/", f"somebody-{number}", "wrong").status_code == 200
    assert log_in("/login/", "another", "wrong").status_code == 429
    for number in range(50):
        assert log_in("/login/", "boss", "wrong", address=f"198.51.100.{number}").status_code == 200
    assert log_in("/login/", "BOSS", PASSWORD, address="203.0.113.1").status_code == 429


def test_neither_names_nor_addresses_are_kept() -> None:
    log_in("/login/", "a-password-typed-as-a-name", "wrong", address="192.0.2.77")
    stored = " ".join(LoginFailure.objects.values_list("subject", flat=True))
    assert LoginFailure.objects.count() == 3
    assert "a-password" not in stored
    assert "192.0" not in stored


def ask(key: str, method: str = "get", path: str = "/api/jobs/", **data: Any) -> Any:
    headers = {"Authorization": f"Token {key}"}
    return getattr(Client(), method)(path, data, content_type="application/json", headers=headers)


def test_a_token_from_the_api_works_until_it_expires_and_its_key_is_not_kept(boss: User) -> None:
    answer = log_in("/api/token/", "boss", PASSWORD).json()
    assert answer["scope"] == "write"
    token = ApiToken.objects.get()
    assert timedelta(days=89) < token.expires - timezone.now() < timedelta(days=91)
    assert answer["token"] not in str(ApiToken.objects.values())
    assert answer["token"] not in str(AuditEntry.objects.filter(action="core.make_token").values())
    assert ask(answer["token"]).status_code == 200
    token.refresh_from_db()
    assert token.last_used is not None
    ApiToken.objects.update(expires=timezone.now())
    assert ask(answer["token"]).status_code == 401


def test_a_token_for_reading_changes_nothing(boss: User) -> None:
    job = Job.objects.create(function="thawloop.x", key="k")
    reading = make_token(boss, scope="read")[1]
    writing = make_token(boss)[1]
    cancel = f"/api/jobs/{job.pk}/cancel/"
    assert ask(reading).status_code == 200
    refused = ask(reading, "post", cancel)
    assert (refused.status_code, "for reading only" in refused.json()["detail"]) == (403, True)
    assert ask(writing, "post", cancel).status_code == 200
    assert ask(reading, "delete", "/api/token/").status_code == 204  # whoever finds that it leaked may end it
    assert ask(reading).status_code == 401


def test_tokens_made_before_there_were_scopes_go_on_working(boss: User) -> None:
    job = Job.objects.create(function="thawloop.x", key="k")
    key = Token.objects.create(user=boss).key
    assert ask(key).status_code == 200
    assert ask(key, "post", f"/api/jobs/{job.pk}/cancel/").status_code == 200


def test_a_token_ends_when_its_owner_asks_or_is_no_longer_active(boss: User) -> None:
    first, second = make_token(boss)[1], make_token(boss)[1]
    assert ask(first, "delete", "/api/token/").status_code == 204
    assert ask(first).status_code == 401
    assert AuditEntry.objects.filter(action="core.withdraw_token").count() == 1
    boss.is_active = False
    boss.save()
    assert ask(second).status_code == 401


def test_guessing_tokens_is_slowed_down_but_good_tokens_are_not(boss: User) -> None:
    key = make_token(boss)[1]
    for _ in range(5):
        assert ask("0" * 40).status_code == 401
    assert ask("0" * 40).status_code == 429
    assert ask(key).status_code == 200


def test_a_program_whose_token_expired_keeps_nobody_else_at_its_address_out(boss: User) -> None:
    for _ in range(25):
        later(seconds=1000)
        assert ask("0" * 40).status_code == 401
    assert ask("0" * 40).status_code == 429
    assert succeeded(log_in("/login/", "boss", PASSWORD, address="127.0.0.1"))


@pytest.mark.parametrize("days", [0, 367])
def test_a_token_for_ever_is_refused(boss: User, days: int) -> None:
    with pytest.raises(Refused, match="1 to 366 days"):
        make_token(boss, days=days)


def test_the_command_tells_the_key(boss: User, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("make_token", "boss", "--days", "7", "--scope", "read", "--name", "qgis")
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert ask(shown["token"]).status_code == 200
    assert ApiToken.objects.get().name == "qgis"


def test_only_admins_see_and_withdraw_tokens_in_the_admin(boss: User, member: Callable[[str], User]) -> None:
    token, _key = make_token(boss)
    client = Client()
    client.force_login(boss)
    assert client.get("/admin/core/apitoken/").status_code == 200
    client.post("/admin/core/apitoken/", {"action": "withdraw", "_selected_action": [token.pk]})
    assert not ApiToken.objects.exists()
    assert not member("lead").has_perm("core.view_apitoken")


def test_metrics_are_for_this_machine_or_for_who_has_the_token(client: Client, settings: Any) -> None:
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="::1", headers={"Host": "localhost"}).status_code == 200
    settings.ALLOWED_HOSTS = ["*"]
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.1", headers={"Host": "127.0.0.1"}).status_code == 403
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1", headers={"Host": "map.example.org"}).status_code == 403
    through = {"Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1"}
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1", headers=through).status_code == 403
    settings.THAWLOOP_METRICS_TOKEN = "long-secret"
    assert client.get("/metrics", REMOTE_ADDR="127.0.0.1", headers={"Host": "localhost"}).status_code == 403
    good = {"Authorization": "Bearer long-secret"}
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.1", headers=good).status_code == 200
