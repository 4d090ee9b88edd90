"""RQ workers that notice a dead child process soon, and whose child processes never outlive them.

One queue per worker (with one queue RQ moves jobs atomically). Every job gets a forked child (RQ's work horse). The
parent has imported what would take a fresh interpreter seconds. It runs none of it, because a process that has run
torch cannot be forked (its thread pools hang in the child); and where there is a GPU it does not even import it,
because a process that has initialised CUDA, as some imports do, leaves it unusable to its children. There each job
imports it.
"""

import ctypes
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import redis
import structlog
from django.conf import settings
from django.db import connections
from redis.client import Pipeline
from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job as Notification
from rq.serializers import JSONSerializer
from rq.worker import Worker

from thawloop.core.jobs import queue

log = structlog.get_logger(__name__)

WORKER_TTL_SECONDS = 60  # workers send a heartbeat every 5 s
_PR_SET_PDEATHSIG = 1
_GPUS = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")  # device files: NVIDIA's, AMD's, WSL's


class DurableWorker(Worker):
    """RQ's forking worker with short intervals, whose child ends with it and is notified of its shutdown."""

    max_connection_wait_time = 5.0
    log_result_lifespan = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("job_monitoring_interval", 5)
        kwargs.setdefault("maintenance_interval", 60)
        kwargs.setdefault("worker_ttl", 20)  # RQ sends a heartbeat 15 s before this
        kwargs.setdefault("log_job_description", False)
        kwargs.setdefault("serializer", JSONSerializer)
        super().__init__(*args, **kwargs)
        self.asked_to_end = False  # RQ itself remembers that only while it is at a job

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Renew the registration for `WORKER_TTL_SECONDS` by Redis's clock; register again if Redis lost its data."""
        if not self.connection.hexists(self.key, "birth"):
            self.connection.delete(self.key)
            self.register_birth()  # type: ignore[no-untyped-call]
        super().heartbeat(WORKER_TTL_SECONDS, pipeline)  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """Tell the running job: it stops at its next check and is continued by another worker."""
        self.asked_to_end = True
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            os.kill(self.horse_pid, signal.SIGTERM)

    def main_work_horse(self, job: Notification, queue: Queue) -> None:
        """Run in the forked child."""
        die_with_parent(self.pid)
        super().main_work_horse(job, queue)


def work(queue_name: str, *, burst: bool = False) -> None:
    """Serve one queue until asked to stop (or, with `burst`, until it is empty), however often Redis goes away."""
    import_ahead(queue_name)
    while True:
        connections.close_all()  # an open connection must not be shared with forked children
        try:
            with queue.connect(patient=True) as connection:
                worker = DurableWorker([queue.queue(queue_name, connection)], connection=connection)
                worker.work(burst=burst)
                if burst or worker.asked_to_end:
                    return
        except redis.exceptions.ConnectionError as error:
            if burst:
                raise queue.unavailable(error) from error
            log.warning("Redis does not answer; trying again", queue=queue_name, error=str(error))
        try:
            time.sleep(2)
        except StopRequested:  # RQ's answer to a signal in between
            return


def import_ahead(queue_name: str, devices: Path = Path("/dev")) -> None:
    """Import what the queue's jobs need (`THAWLOOP_IMPORT_AHEAD`), unless they may compute on a GPU of this machine."""
    if settings.THAWLOOP_DEVICE == "cpu" or not any(any(devices.glob(name)) for name in _GPUS):
        try:
            for module in settings.THAWLOOP_IMPORT_AHEAD.get(queue_name, ()):
                importlib.import_module(module)
        except ImportError as error:  # the queue has jobs that can do without; the others say it in their rows
            log.warning("not everything that jobs need is installed", queue=queue_name, error=str(error))


def die_with_parent(parent: int | None) -> None:
    """Have the kernel kill this process when its parent ends (Linux; elsewhere the lease alone protects the job)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has already ended
        os.kill(os.getpid(), signal.SIGKILL)


def live_workers(queue_name: str) -> int:
    """How many workers serve the queue.

    Raises:
        RedisUnavailable: Redis does not answer.
    """
    return len(queue.workers(queue_name))
