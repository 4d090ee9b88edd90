"""What an installation relies on: settings that are documented, one secret key, no torch, no package `platform`."""

import ast
import os
import re
import stat
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
READERS = {"str", "bool", "int", "float", "list", "db_url"}
EXAMPLES = {"DATABASE_URL", "REDIS_URL"}  # shown with an example instead of the default


def settings_read() -> dict[str, object]:
    """Names of the environment variables that settings.py reads, with their defaults where those are constants."""
    names = {}
    for node in ast.walk(ast.parse((REPOSITORY / "platform" / "thawloop" / "settings.py").read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "env"
            and node.func.attr in READERS
        ):
            name, *default = node.args
            assert isinstance(name, ast.Constant)
            names[name.value] = default[0].value if default and isinstance(default[0], ast.Constant) else None
    return names


def documented() -> dict[str, tuple[str, str]]:
    """Names in .env.example, each with its value and the comment above."""
    found, comment = {}, ""
    for line in (REPOSITORY / ".env.example").read_text().splitlines():
        if match := re.fullmatch(r"#\s?([A-Z][A-Z0-9_]+)=(.*)", line):
            found[match[1]] = match[2], comment
        elif line.startswith("# "):
            comment = line
        elif not line:
            comment = ""
    return found


def test_every_setting_is_documented() -> None:
    assert set(settings_read()) - set(documented()) == set()


def test_everything_documented_is_read_by_something() -> None:
    sources = [REPOSITORY / name for name in ("docker-compose.yml", "Makefile", "tests/conftest.py")]
    sources += [
        *(REPOSITORY / "platform").rglob("*.py"),
        *(REPOSITORY / "devstack").rglob("*.py"),
        *(REPOSITORY / "tests" / "e2e").rglob("*.py"),
    ]
    text = "\n".join(source.read_text() for source in sources if source.exists())
    elsewhere = {"UV_TORCH_BACKEND", "CHROMIUM_PATH"}  # read by uv, and by tests that draw pictures
    assert [name for name in documented() if name not in text and name not in elsewhere] == []


def test_documented_defaults_are_the_defaults() -> None:
    shown = {name: value for name, (value, _comment) in documented().items()}
    for name, default in settings_read().items():
        if name in EXAMPLES or default in (None, ""):
            continue
        if isinstance(default, bool):
            assert shown[name] == str(default).lower(), name
        elif isinstance(default, int | float):
            assert float(shown[name]) == float(default), name
        else:
            assert shown[name] == default, name


def test_every_documented_setting_has_a_comment() -> None:
    assert [name for name, (_value, comment) in documented().items() if not comment] == []


def test_the_example_changes_nothing() -> None:
    """A copy of .env.example as .env must work as it is."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


def test_processes_that_start_together_agree_on_one_secret_key(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "key"
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from thawloop.secret_key import persistent_secret_key
sys.stdin.readline()
print(persistent_secret_key(Path({str(path)!r})))
"""
    starting = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in starting:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    keys = [process.communicate()[0] for process in starting]
    assert len(set(keys)) == 1
    assert len(keys[0]) > 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_platform_is_no_package() -> None:
    assert not (REPOSITORY / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("command", ["worker", "reconciler"])
def test_the_parent_of_a_worker_has_no_torch(command: str) -> None:
    """A process that has run torch cannot be forked, and the web installation has none."""
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import django
django.setup()
from django.core.management import load_command_class
load_command_class("thawloop.core", {command!r})
import thawloop.urls
print(sorted({{"torch", "mmdet", "mmengine", "mmcv"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr


WITHOUT_WORKER_PACKAGES = """
import sys

blocked = set(sys.argv[1].split(","))


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Blocker())
import django

django.setup()
from thawloop.core.jobs.function import job_function

print(*(job_function(path).queue for path in sys.argv[2:]))
"""


def test_the_web_installation_can_ask_for_every_job() -> None:
    """Asking for a job reads its declaration, in a process that has none of the workers' packages."""
    pinned = {name: re.findall(r"^([\w.-]+)==", requirements(name), re.MULTILINE) for name in ("base", "worker")}
    of_workers = {canonicalize_name(name) for name in pinned["worker"]} - {*map(canonicalize_name, pinned["base"])}
    modules = packages_distributions()
    blocked = {module for module, names in modules.items() if {*map(canonicalize_name, names)} <= of_workers}
    assert {"torch", "mmdet", "pycocotools"} <= blocked
    code = [path for room in ("platform", "labeling", "ml_backend") for path in (REPOSITORY / room).rglob("*.py")]
    named = re.compile(r'"((?:thawloop|labeling|ml_backend)[\w.]*\.jobs\.\w+)"')
    asked = {path for file in code for path in named.findall(file.read_text())} - {"thawloop.core.jobs.execute"}  # RQ's
    assert {"ml_backend.jobs.predict", "labeling.labelstudio.jobs.push", "thawloop.training.jobs.release"} <= asked
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "thawloop.settings"}
    command = [sys.executable, "-c", WITHOUT_WORKER_PACKAGES, ",".join(sorted(blocked)), *sorted(asked)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert len(done.stdout.split()) == len(asked), done.stderr


def requirements(name: str) -> str:
    """The pinned packages of an installation."""
    return (REPOSITORY / "requirements" / f"{name}.txt").read_text()
