"""The private servers: who may enter, who finds them, what survives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from devstack.instance import Instance
from devstack.processes import is_alive
from devstack.stack import LocalStack

OWNER = """
import sys, time
from pathlib import Path
from devstack.stack import LocalStack
with LocalStack(Path(sys.argv[1]), durable=sys.argv[2] == "durable") as stack:
    print(stack.pids["postgres"], stack.pids["redis"], flush=True)
    sys.stdin.read()
"""


def start_owner(root: Path, kind: str = "throwaway") -> "tuple[subprocess.Popen[str], list[int]]":
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(root), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert owner.stdout is not None
    return owner, [int(pid) for pid in owner.stdout.readline().split()]


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack"), durable=False) as stack:
        yield stack


def test_postgis_answers_to_a_role_without_special_rights(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url.replace("postgis:", "postgresql:")) as connection:
        area = connection.execute("SELECT ST_Area('POLYGON((0 0, 0 2, 2 2, 2 0, 0 0))'::geometry)").fetchone()
        special = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    assert area == (4.0,)
    assert special == (False,)


def test_nobody_enters_without_the_password(stack: LocalStack) -> None:
    url = stack.database_url.replace("postgis:", "postgresql:")
    password = url.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(password, "guess"))
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url.replace(f":{password}", ""))
    without = stack.redis_url.split("@")[1]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(f"redis://{without}").ping()


def test_servers_listen_on_loopback_only_and_not_with_roots_rights(stack: LocalStack) -> None:
    for pid in stack.pids.values():
        assert pid is not None
        status = Path(f"/proc/{pid}/status").read_text()
        inside = Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
        effective = int(next(line for line in status.splitlines() if line.startswith("Uid")).split()[2])
        assert inside or effective != 0
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert "127.0.0.1" in command


def test_passwords_are_not_on_any_command_line(stack: LocalStack) -> None:
    secrets = [path.read_text().strip() for path in (stack.root / "secrets").iterdir()]
    assert secrets
    for pid in stack.pids.values():
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [secret for secret in secrets if secret in command]


def test_a_second_opener_finds_the_running_servers_and_leaves_them_running(stack: LocalStack) -> None:
    with LocalStack(stack.root, durable=False) as second:
        assert second.database_url == stack.database_url
        assert second.redis_url == stack.redis_url
        assert second.pids == {"postgres": None, "redis": None}
    assert redis.Redis.from_url(stack.redis_url).ping()


def test_killing_the_owner_leaves_no_server_behind(tmp_path: Path) -> None:
    owner, pids = start_owner(tmp_path)
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_for_end(pids)
    assert not any(map(is_alive, pids))


def test_data_of_a_durable_stack_survives_kill_minus_nine_of_everything(tmp_path: Path) -> None:
    owner, pids = start_owner(tmp_path, "durable")
    with LocalStack(tmp_path) as stack:
        with psycopg.connect(stack.database_url.replace("postgis:", "postgresql:")) as connection:
            connection.execute("CREATE TABLE slump (outline geometry)")
            connection.execute("INSERT INTO slump VALUES ('POINT(1 2)')")
        queue = redis.Redis.from_url(stack.redis_url)
        queue.rpush("queue", "job")
        time.sleep(1.1)  # the append-only file is flushed once a second
        for pid in [*pids, owner.pid]:
            os.kill(pid, signal.SIGKILL)
        owner.wait()
        wait_for_end(pids)
    with LocalStack(tmp_path) as stack:
        with psycopg.connect(stack.database_url.replace("postgis:", "postgresql:")) as connection:
            assert connection.execute("SELECT ST_AsText(outline) FROM slump").fetchone() == ("POINT(1 2)",)
        assert redis.Redis.from_url(stack.redis_url).lrange("queue", 0, -1) == [b"job"]


def test_a_stale_note_of_a_dead_server_is_not_believed(tmp_path: Path) -> None:
    with LocalStack(tmp_path, durable=False):
        pass
    other = subprocess.Popen(["sleep", "60"])
    try:
        for service in ("postgres", "redis"):
            Instance(other.pid, 1).write(tmp_path / service / "instance.json")
        with LocalStack(tmp_path, durable=False) as stack:
            assert None not in stack.pids.values()
            assert redis.Redis.from_url(stack.redis_url).ping()
    finally:
        other.kill()
        other.wait()


def test_folders_of_killed_owners_are_removed_by_the_next_throwaway_stack(tmp_path: Path) -> None:
    code = "from devstack.stack import LocalStack; import os, signal\n"
    code += "s = LocalStack.throwaway(database_url='x', redis_url='y'); print(s.root, flush=True)\n"
    code += "os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    abandoned = Path(done.stdout.strip())
    assert abandoned.is_dir()
    fresh = LocalStack.throwaway(database_url="x", redis_url="y")
    fresh.stop()
    assert not abandoned.exists()
    assert not fresh.root.exists()


def test_servers_that_are_killed_come_back_on_their_ports_with_their_data(tmp_path: Path) -> None:
    with LocalStack(tmp_path) as stack:
        stack.supervise([])
        url = stack.database_url.replace("postgis:", "postgresql:")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        redis.Redis.from_url(stack.redis_url).set("kept", "1")
        time.sleep(1.1)  # the append-only file is flushed once a second
        before = stack.pids
        for pid in before.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with psycopg.connect(url) as connection:
                    assert connection.execute("SELECT value FROM kept").fetchone() == (1,)
                assert redis.Redis.from_url(stack.redis_url).get("kept") == b"1"
                break
            except (psycopg.OperationalError, redis.ConnectionError):
                time.sleep(0.1)
        assert time.monotonic() < deadline
        assert not set(before.values()) & set(stack.pids.values())
