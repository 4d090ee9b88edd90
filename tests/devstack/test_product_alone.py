"""An installation without the checkout's servers and demo."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from django.conf import settings

REPOSITORY = Path(__file__).resolve().parents[2]
PRODUCT = ("manage.py", "platform", "contracts", "labeling", "ml_backend", "migrations")
PROBE = """
import sys, django
from django.core.management import get_commands
from django.urls import get_resolver
django.setup()
get_resolver().url_patterns
ours = {"devstack", "demo"}
print(sorted(ours & {*get_commands().values(), *(name.partition(".")[0] for name in sys.modules)}))
"""


def test_a_process_of_the_product_loads_neither_servers_nor_demo() -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "thawloop.settings"}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert {"devstack", "demo"} <= set(settings.INSTALLED_APPS)  # those of a checkout, in which the tests run


def test_manage_py_of_an_installation_has_the_products_commands_alone(tmp_path: Path) -> None:
    """As the container image has it; `-S` keeps this checkout's own packages out."""
    shutil.copy(REPOSITORY / "manage.py", tmp_path)
    for name in PRODUCT[1:]:
        (tmp_path / name).symlink_to(REPOSITORY / name)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(tmp_path / "platform"), *packages])}
    command = [sys.executable, "-S", str(tmp_path / "manage.py"), "help"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "create_campaign" in done.stdout
    assert "generate_dataset" not in done.stdout


def test_the_wheel_holds_the_product_alone() -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["packages"]) == sorted(["platform/thawloop", *PRODUCT[2:]])
