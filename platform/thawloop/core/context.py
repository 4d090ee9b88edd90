"""The actor of the moment: a user, or a named process. Audit entries and jobs take it from here."""

import uuid
from collections.abc import Iterator
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


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


def current_actor() -> Actor:
    """The actor bound by the innermost `acting`."""
    return _actor.get() or Actor()


@contextmanager
def acting(
    *, user: Any = None, name: str = "", request_id: str | None = None, job_id: uuid.UUID | None = None
) -> Iterator[Actor]:
    """Bind who acts inside the block. An anonymous or missing user leaves the process's name."""
    known = user if user is not None and user.is_authenticated else None
    actor = Actor(
        user=known,
        name=known.get_username() if known else (name or "anonymous"),
        request_id=(request_id or uuid.uuid4().hex)[:64],
        job_id=job_id,
    )
    token = _actor.set(actor)
    try:
        yield actor
    finally:
        _actor.reset(token)
