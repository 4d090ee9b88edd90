"""A module of job functions that tests make up, under a path that jobs may name.

Imports that need Django's settings are inside the fixtures: this file is read before the settings are.
"""

import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    from thawloop.core.models import Job

PROBE = "thawloop.probe"


@pytest.fixture
def job_of(monkeypatch: pytest.MonkeyPatch) -> "Callable[..., Job]":
    """`job_of(function, **enqueue arguments)`: a queued job that will call this very function."""
    from thawloop.core.services import enqueue

    module = types.ModuleType(PROBE)
    monkeypatch.setitem(sys.modules, PROBE, module)

    def make(function: Callable[..., Any], **options: Any) -> "Job":
        setattr(module, function.__name__, function)
        options.setdefault("key", function.__name__)
        return enqueue(f"{PROBE}.{function.__name__}", **options)

    return make


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
