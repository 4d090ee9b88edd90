"""A module of job functions that tests make up, under a path that jobs may name.

Imports that need Django's settings are inside the fixtures: this file is read before the settings are.
"""

import sys
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    from thawloop.core.models import Job

PROBE = "thawloop.probe"


@pytest.fixture
def job_of(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Callable[..., Job]]":
    """`job_of(function, ...)`: a queued job that will call this very function.

    It is declared with `queue`, `max_attempts` and `on_failed` if given; `key` and `args` are enqueue's.

    Other jobs stand beside it in every state, and what is done to it must not touch them.
    """
    from thawloop.core.jobs import enqueue, job
    from thawloop.core.models import Job

    module = types.ModuleType(PROBE)
    monkeypatch.setitem(sys.modules, PROBE, module)
    before: list[dict[str, Any]] = []

    def others() -> list[dict[str, Any]]:
        return list(Job.objects.filter(key__startswith="another-").order_by("key").values())

    def make(function: Callable[..., Any], **options: Any) -> "Job":
        if not before:
            _other_jobs()
            before.extend(others())
        declared = {name: options.pop(name) for name in ("queue", "max_attempts", "on_failed") if name in options}
        setattr(module, function.__name__, job(**declared)(function))
        options.setdefault("key", function.__name__)
        return enqueue(f"{PROBE}.{function.__name__}", **options)

    yield make
    if before:
        assert others() == before


def _other_jobs() -> None:
    """A job in each state, of which none is due."""
    from django.utils.timezone import now

    from thawloop.core.models import Job

    later = now() + timedelta(days=1)
    for state in Job.State.values:
        running = state == Job.State.RUNNING
        Job.objects.create(
            function=f"{PROBE}.another",
            key=f"another-{state}",
            state=state,
            not_before=later if state == Job.State.QUEUED else None,
            lease_token=uuid4() if running else None,
            lease_until=later if running else None,
            error="" if running else "as it was",
        )


@pytest.fixture
def member(db: None) -> "Callable[[str], User]":
    """`member("lead")`: a user in that role."""
    from django.contrib.auth.models import Group, User

    def make(role: str) -> "User":
        user = User.objects.create_user(username=f"{role}-{User.objects.count()}")
        user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def client_of() -> "Callable[[User], APIClient]":
    """An API client that acts for a user."""
    from rest_framework.test import APIClient

    def make(user: "User") -> "APIClient":
        client = APIClient()
        client.force_authenticate(user)
        return client

    return make
