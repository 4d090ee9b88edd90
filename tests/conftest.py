"""Fixtures for every test: real PostGIS, real Redis, a real Label Studio, real data.

One throwaway stack per pytest process is started by the first test that needs it; any number of pytest processes can
run side by side (`-n 2`). In the environment, DATABASE_URL and REDIS_URL name servers to use instead of private ones,
and THAWLOOP_TEST_STACK a folder whose stack is shared by all who name it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    import redis
    from playwright.sync_api import Browser

    from devstack.labelstudio import LabelStudioServer
    from devstack.stack import LocalStack

REPOSITORY = Path(__file__).resolve().parents[1]
_STACK = pytest.StashKey["LocalStack"]()
# Tests of rooms that know no Django (import-linter says so) run without it: one of them alone ends in two seconds.
WITHOUT_DJANGO = ("acquisition", "contracts", "detector", "scripts")


# No test may fail because a machine is slow or busy.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Say how processors are shared."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process only gives tests to others, which must not inherit settings that are made for it
    # Before any test imports torch: see ml_backend/__init__.py; and processes beside each other share the processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Set Django up before the first module that may need it is imported."""
    room = module_path.relative_to(REPOSITORY / "tests").parts[0]
    if room not in WITHOUT_DJANGO and _STACK not in parent.config.stash:
        _set_django_up(parent.config)


def _set_django_up(config: pytest.Config) -> None:
    """Settings with a folder for files; where their servers are is said when they are started."""
    from django.conf import settings

    config.stash[_STACK] = stack = _make_stack()
    os.environ["DJANGO_SETTINGS_MODULE"] = "devstack.settings"
    os.environ["THAWLOOP_VAR"] = str(stack.root / "var")  # secrets, artifacts, static files: nothing of a developer's
    if (data := REPOSITORY.parent / "shared" / "data").is_dir():
        os.environ.setdefault("THAWLOOP_REAL_DATA", str(data))
    os.environ["THAWLOOP_ENV_FILE"] = os.devnull  # nor a developer's .env
    assert settings.INSTALLED_APPS  # reads the settings
    # Again, for the settings are known now: it sets Django up, and keeps tests that do not ask for the database off it.
    config.pluginmanager.get_plugin("django").pytest_configure(config)


# The first two begin together: only one of them waits for Label Studio's first start, and the other needs none.
LONG = ("e2e/test_loop", "detector/comparison/test_compare", "devstack", "e2e", "training", "demo", "chaos", "detector")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: with several processes the last one should not keep the others waiting."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(REPOSITORY / "tests").as_posix()
        return next((place for place, start in enumerate(LONG) if path.startswith(start)), len(LONG))

    items.sort(key=rank)


def _make_stack() -> "LocalStack":
    from devstack.stack import LocalStack

    servers = {"database_url": os.environ.get("DATABASE_URL"), "redis_url": os.environ.get("REDIS_URL")}
    if shared := os.environ.get("THAWLOOP_TEST_STACK"):
        return LocalStack(Path(shared), durable=False, **servers)
    return LocalStack.throwaway(**servers)


def _refuse_redis_with_data(url: str) -> None:
    """Tests empty their Redis, so it must not be one that somebody uses."""
    import redis

    with redis.Redis.from_url(url) as client:
        if "REDIS_URL" in os.environ and client.dbsize():
            pytest.exit("REDIS_URL names a Redis that holds data, and tests empty it: unset REDIS_URL.", returncode=2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the services and remove their folder."""
    if (stack := config.stash.get(_STACK, None)) is not None:
        stack.stop()


@pytest.fixture(scope="session")
def local_stack(pytestconfig: pytest.Config) -> "LocalStack":
    """The stack of this pytest process, running: `.database_url`, `.redis_url`, `.supervise([...])`."""
    import environ
    from django.conf import settings

    from devstack.errors import LocalServiceError

    stack = pytestconfig.stash[_STACK]
    try:
        stack.start()
    except LocalServiceError as error:
        pytest.exit(str(error), returncode=2)
    _refuse_redis_with_data(stack.redis_url)
    os.environ.update(stack.environment)
    settings.REDIS_URL = stack.redis_url
    named = environ.Env.db_url_config(stack.database_url)
    settings.DATABASES["default"].update({key: named[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")})
    return stack


@pytest.fixture(scope="session")
def django_db_modify_db_settings(local_stack: "LocalStack") -> None:
    """Start the database, and give the test's one a name of this process: several test runs may share a server."""
    from django.conf import settings

    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = f"test_thawloop_{os.getpid()}"
    _let_tests_empty_tables()


def _let_tests_empty_tables() -> None:
    """Let Django empty the tables after tests that commit: the database refuses to truncate tables of history."""
    from django.db import connection, transaction

    flush = connection.ops.execute_sql_flush

    def execute_sql_flush(statements: list[str]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'append_only_truncate'")
            guarded = [table for (table,) in cursor.fetchall()]
            for table in guarded:
                cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only_truncate")
            flush(statements)
            for table in guarded:
                cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER append_only_truncate")

    connection.ops.execute_sql_flush = execute_sql_flush


@pytest.fixture(scope="session")
def labelstudio(local_stack: "LocalStack") -> "LabelStudioServer":
    """A real Label Studio (`.url`, `.token`, `.username`, `.password`), started by the first test that asks for it."""
    return local_stack.start_labelstudio()


@pytest.fixture
def live_redis(local_stack: "LocalStack") -> Iterator["redis.Redis[bytes]"]:
    """A client of the real Redis, which is empty before and after the test."""
    import redis

    with redis.Redis.from_url(local_stack.redis_url) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator["Browser"]:
    """A real Chromium; pytest-playwright's `page` and `context` use it too.

    One per test: playwright's event loop lives in this thread as long as it runs, and Django's ORM minds that.
    """
    from playwright.sync_api import sync_playwright

    from devstack.binaries import find_chromium

    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine (make install)")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with monkeypatch.context() as while_starting:
        for name, value in program.environment.items():
            while_starting.setenv(name, value)
        playwright = sync_playwright().start()
        chromium = playwright.chromium.launch(executable_path=str(program.path), args=["--no-sandbox"])
    yield chromium
    chromium.close()
    playwright.stop()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real rasters and labels; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("THAWLOOP_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set THAWLOOP_REAL_DATA)")
    return folder
