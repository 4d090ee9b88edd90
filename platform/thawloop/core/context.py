"""The actor of the moment: a user, or a named process. Audit entries and jobs take it from here."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Actor:
    """Who acts, in which request and job."""

    user: Any = None
    name: str = "system"
    request_id: str = ""
    job_id: uuid.UUID | None = None


_actor: ContextVar[Callable[[], Actor] | None] = ContextVar("actor", default=None)


def current_actor() -> Actor:
    """The actor bound by the innermost `acting`."""
    describe = _actor.get()
    return describe() if describe else Actor()


@contextmanager
def acting(
    *, user: Any = None, name: str = "", request_id: str | None = None, job_id: uuid.UUID | None = None
) -> Iterator[Actor]:
    """Bind who acts inside the block. An anonymous or missing user leaves the process's name."""
    request_id = request_id or new_request_id()
    with _bound(lambda: _describe(user, name, request_id, job_id)):
        yield current_actor()


@contextmanager
def acting_in_request(request: Any, request_id: str) -> Iterator[None]:
    """Bind the user of a web request, asked for only when needed: the API authenticates tokens inside its views."""
    with _bound(lambda: _describe(request.user, "", request_id, None)):
        yield


def new_request_id() -> str:
    """A fresh id for something that happens."""
    return uuid.uuid4().hex


@contextmanager
def _bound(describe: Callable[[], Actor]) -> Iterator[None]:
    token = _actor.set(describe)
    try:
        yield
    finally:
        _actor.reset(token)


def _describe(user: Any, name: str, request_id: str, job_id: uuid.UUID | None) -> Actor:
    known = user if user is not None and user.is_authenticated else None
    return Actor(
        user=known,
        name=known.get_username() if known else (name or "anonymous"),
        request_id=request_id[:64],
        job_id=job_id,
    )
