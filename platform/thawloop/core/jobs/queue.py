"""RQ notifies workers that a job row waits. Losing a notification loses time, never work.

Therefore: no RQ retries, no RQ dependencies, nothing but the row's id and attempt in Redis, as JSON.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, Worker

from thawloop.core.errors import Unavailable

RESULT_SECONDS = 60
FAILURE_SECONDS = 3600


class RedisUnavailable(Unavailable):
    """Redis does not answer."""


def connect(*, patient: bool = False) -> redis.Redis:
    """A Redis connection; unless `patient` (workers, which wait for notifications), it gives up after a few seconds."""
    if patient:
        return redis.Redis.from_url(settings.REDIS_URL)
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=2.0, socket_timeout=5.0, retry=Retry(NoBackoff(), 0)
    )


def queue(name: str, connection: redis.Redis) -> Queue:
    """RQ's queue of that name."""
    return Queue(name, connection=connection, serializer=JSONSerializer, default_timeout=-1)


def notify(name: str, job_id: str, attempt: int, dispatch: int) -> None:
    """Notify the workers of queue `name` of a job row.

    Raises:
        RedisUnavailable: that is not possible now; the row waits for the reconciler.
    """
    with _available() as connection:
        queue(name, connection).enqueue_call(
            "thawloop.core.jobs.execute",
            args=(job_id, attempt),
            job_id=f"{job_id}-{attempt}-{dispatch}",
            timeout=-1,
            result_ttl=RESULT_SECONDS,
            failure_ttl=FAILURE_SECONDS,
            description=f"job {job_id}, attempt {attempt}",
        )


def waiting(name: str) -> set[str]:
    """RQ ids that still wait in queue `name`: workers have not taken these notifications yet, but will."""
    with _available() as connection:
        return set(queue(name, connection).job_ids)


def workers(name: str) -> list[BaseWorker]:
    """The live workers of queue `name`: those whose heartbeat has not run out."""
    with _available() as connection:
        return Worker.all(queue=queue(name, connection), serializer=JSONSerializer)


def version() -> str:
    """Redis's version."""
    with _available() as connection:
        return str(connection.info("server")["redis_version"])


@contextmanager
def _available() -> Iterator[redis.Redis]:
    try:
        with connect() as connection:
            yield connection
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> RedisUnavailable:
    """The sentence for a Redis that does not answer."""
    return RedisUnavailable(
        f"Redis does not answer ({type(error).__name__}): check that it runs and that REDIS_URL names it."
    )
