"""Whatever is killed, every job is done, and its result is written once."""

import os
import signal
import time

import pytest
import redis

from thawloop.core.jobs import cancel_job
from thawloop.core.jobs.worker import live_workers
from thawloop.core.models import Job

pytestmark = pytest.mark.django_db(transaction=True)


def states() -> list[str]:
    return sorted(Job.objects.values_list("state", flat=True))


def finished(job: Job) -> bool:
    job.refresh_from_db()
    return not job.is_active


def test_worker_and_horse_killed_the_job_runs_again_and_finishes_once(crowd) -> None:
    worker = crowd.worker()
    crowd.reconcile()
    job = crowd.enqueue("steps", "k", until=str(crowd.gate))
    crowd.until(lambda: crowd.events("began"), "the job began")
    [(_, horse)] = crowd.events("began")
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    crowd.worker()
    crowd.until(lambda: len(crowd.events("began")) == 2, "another attempt began")
    crowd.gate.touch()
    crowd.until(lambda: finished(job), "the job finished")
    assert (job.state, job.attempt, job.result["attempt"]) == ("succeeded", 2, 2)
    assert [attempt for attempt, _ in crowd.events("ended")] == [2]


def test_only_the_horse_killed_the_same_worker_goes_on(crowd) -> None:
    crowd.worker()
    crowd.reconcile()
    job = crowd.enqueue("steps", "k", until=str(crowd.gate))
    crowd.until(lambda: crowd.events("began"), "the job began")
    os.kill(crowd.events("began")[0][1], signal.SIGKILL)
    crowd.until(lambda: len(crowd.events("began")) == 2, "another attempt began")
    crowd.gate.touch()
    crowd.until(lambda: finished(job), "the job finished")
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert len(crowd.events("ended")) == 1


def test_only_the_worker_killed_its_horse_dies_with_it(crowd) -> None:
    worker = crowd.worker()
    crowd.reconcile()
    job = crowd.enqueue("deaf", "k", until=str(crowd.gate))
    crowd.until(lambda: crowd.events("began"), "the job began")
    [(_, horse)] = crowd.events("began")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    crowd.until(lambda: not os.path.exists(f"/proc/{horse}"), "the orphan ended")
    crowd.worker()
    crowd.until(lambda: len(crowd.events("began")) == 2, "another attempt began")
    crowd.gate.touch()
    crowd.until(lambda: finished(job), "the job finished")
    assert [attempt for attempt, _ in crowd.events("ended")] == [2]


def test_a_horse_stopped_beyond_its_lease_is_fenced_when_it_wakes(crowd) -> None:
    crowd.worker()
    crowd.reconcile()
    job = crowd.enqueue("deaf", "k", until=str(crowd.gate))
    crowd.until(lambda: crowd.events("began"), "the job began")
    [(_, sleeper)] = crowd.events("began")
    os.kill(sleeper, signal.SIGSTOP)
    crowd.worker()
    crowd.until(lambda: len(crowd.events("began")) == 2, "another attempt began")
    crowd.gate.touch()
    crowd.until(lambda: finished(job), "the job finished")
    os.kill(sleeper, signal.SIGCONT)
    crowd.until(lambda: not os.path.exists(f"/proc/{sleeper}"), "the fenced horse ended")
    job.refresh_from_db()
    assert (job.state, job.attempt, job.result) == ("succeeded", 2, {"attempt": 2})


def test_a_worker_that_is_shut_down_hands_its_job_on_without_losing_an_attempt(crowd) -> None:
    worker = crowd.worker()
    crowd.reconcile()
    job = crowd.enqueue("steps", "k", until=str(crowd.gate))
    crowd.until(lambda: crowd.events("began"), "the job began")
    worker.terminate()
    crowd.until(lambda: worker.poll() is not None, "the worker ended")
    assert worker.returncode == 0
    crowd.gate.touch()
    crowd.worker()
    crowd.until(lambda: finished(job), "the job finished")
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert len(crowd.events("began")) == 2


def test_an_idle_worker_ends_when_it_is_told_to_and_does_not_begin_again(crowd) -> None:
    worker = crowd.worker()
    crowd.until(lambda: live_workers("default") == 1, "the worker lives")
    time.sleep(1)  # it waits for work
    worker.terminate()
    crowd.until(lambda: worker.poll() is not None, "the worker ended")
    assert worker.returncode == 0
    assert live_workers("default") == 0


def test_a_running_job_is_cancelled(crowd) -> None:
    crowd.worker()
    job = crowd.enqueue("steps", "k", until=str(crowd.gate))
    crowd.until(lambda: crowd.events("began"), "the job began")
    assert (live_workers("default"), live_workers("gpu")) == (1, 0)
    cancel_job(job)
    crowd.until(lambda: finished(job), "the job stopped")
    assert job.state == "cancelled"
    assert crowd.events("ended") == []


def test_workers_are_known_again_after_redis_forgot_everything_whatever_their_clock_says(crowd, redis_server) -> None:
    crowd.worker()
    crowd.until(lambda: live_workers("default") == 1, "the worker was known")
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        client.flushall()
        crowd.until(lambda: live_workers("default") == 1, "the worker was known again")
        (key,) = client.smembers("rq:workers:default")
        client.hset(key, "last_heartbeat", "2020-01-01T00:00:00.000000Z")
    assert live_workers("default") == 1


def test_redis_forgets_everything_and_all_jobs_finish_once(crowd, redis_server) -> None:
    for number in range(6):
        crowd.enqueue("steps", f"k{number}")
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.llen("rq:queue:default") == 6
        client.flushall()
    crowd.worker()
    crowd.reconciler()
    crowd.reconciler()
    crowd.until(lambda: states() == ["succeeded"] * 6, "all jobs finished")
    assert len(crowd.events("began")) == len(crowd.events("ended")) == 6


def test_redis_goes_and_comes_back_and_all_jobs_finish_once(crowd, redis_server) -> None:
    crowd.worker()
    crowd.reconcile()
    crowd.enqueue("steps", "before")
    crowd.until(lambda: states() == ["succeeded"], "the worker worked")
    with redis.Redis.from_url(redis_server.url) as client:
        client.shutdown(nosave=True)
    for number in range(3):
        crowd.enqueue("steps", f"meanwhile {number}")
    assert states() == ["queued"] * 3 + ["succeeded"]
    redis_server()
    crowd.until(lambda: states() == ["succeeded"] * 4, "all jobs finished")
    assert len(crowd.events("ended")) == 4


def test_two_workers_and_two_reconcilers_do_each_of_many_jobs_once(crowd) -> None:
    for _ in range(2):
        crowd.worker()
        crowd.reconciler()
    for number in range(20):
        crowd.enqueue("steps", f"k{number}")
    crowd.until(lambda: states() == ["succeeded"] * 20, "all jobs finished")
    assert len(crowd.events("began")) == 20
    assert set(Job.objects.values_list("attempt", flat=True)) == {1}
