"""What `make install` promises: pins that agree, a sentence where it cannot go on, nothing done twice."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from devstack import binaries, debian
from devstack.errors import ServiceMissing

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "requirements"


def names(text: str) -> set[str]:
    found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


def wanted(name: str) -> set[str]:
    return names((REQUIREMENTS / f"{name}.in").read_text())


def pinned(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==(\S+)", text, re.MULTILINE))


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", REPOSITORY / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_packages_own_requirements_are_those_that_are_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert names("\n".join(project["dependencies"])) <= wanted("base")
    assert names("\n".join(project["optional-dependencies"]["worker"])) <= wanted("worker")


def test_everything_wanted_is_pinned_and_the_larger_files_contain_the_smaller() -> None:
    for name in ("base", "worker", "dev", "labelstudio"):
        assert wanted(name) <= pinned(name).keys()
    assert pinned("base").items() <= pinned("worker").items()
    assert pinned("worker").items() <= pinned("dev").items()


def test_the_web_process_installs_without_torch_and_nobody_gets_two_opencvs() -> None:
    assert not {"torch", "torchvision", "onedl-mmcv", "onedl-mmdetection"} & pinned("base").keys()
    assert {"torch", "torchvision"} <= pinned("worker").keys()
    for name in ("base", "worker", "dev"):
        assert "opencv-python" not in pinned(name)
        assert "opencv-python-headless" in pinned(name)


def test_pins_name_no_index_and_no_cuda_package() -> None:
    for file in REQUIREMENTS.iterdir():
        assert "://" not in file.read_text(), file.name
    assert not [name for name in pinned("dev") if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_label_studio_and_its_sdk_are_a_pair() -> None:
    assert pinned("labelstudio")["label-studio"] == "1.23.2"
    assert pinned("labelstudio")["label-studio-sdk"] == pinned("base")["label-studio-sdk"]


def test_an_unsupported_python_is_refused_with_the_versions_that_would_do(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(bootstrap.SetupFailed, match=r"Python 3\.9 is not supported, and none of 3\.11, 3\.12, 3\.13"):
        bootstrap.find_python(False)


def test_another_supported_python_on_path_is_taken(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    other = tmp_path / "python3.12"
    other.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bootstrap.find_python(False) == str(other)


def test_bootstrap_is_written_in_the_syntax_of_old_pythons() -> None:
    import ast

    ast.parse((REPOSITORY / "scripts" / "bootstrap.py").read_text(), feature_version=(3, 8))


def test_missing_programs_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THAWLOOP_POSTGRES_BINDIR", str(tmp_path))
    with pytest.raises(ServiceMissing, match="PostgreSQL was not found here: run `make install`"):
        binaries.find_postgres()
    monkeypatch.delenv("THAWLOOP_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("THAWLOOP_SYSTEM", str(tmp_path))
    with pytest.raises(ServiceMissing, match="Redis was not found here: run `make install`"):
        binaries.find_redis()


def test_a_postgresql_without_postgis_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "lib/postgresql/15/bin"
    folder.mkdir(parents=True)
    (folder / "postgres").touch()
    (folder / "initdb").touch()
    monkeypatch.setenv("THAWLOOP_POSTGRES_BINDIR", str(folder))
    with pytest.raises(ServiceMissing, match="has no PostGIS"):
        binaries.find_postgres()
    extension = tmp_path / "share/postgresql/15/extension"
    extension.mkdir(parents=True)
    (extension / "postgis.control").touch()
    assert binaries.find_postgres().folder == folder


def test_packages_unpacked_without_root_get_postgis_by_its_plain_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("THAWLOOP_SYSTEM", str(tmp_path))
    extension = tmp_path / "root/usr/share/postgresql/15/extension"
    extension.mkdir(parents=True)
    (extension / "postgis-3.control").write_text("default_version = '3.3.2'")
    debian._link_postgis()
    debian._link_postgis()
    assert (extension / "postgis.control").read_text() == "default_version = '3.3.2'"


class TestLinks:
    """The link checker finds what leads nowhere, and nothing else."""

    def check(self, *files: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, REPOSITORY / "scripts" / "check_links.py", *files]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_good_links_pass(self, tmp_path: Path) -> None:
        (tmp_path / "other.md").write_text("# A `code` heading: part 2\n\n# Same\n\n# Same\n")
        page = tmp_path / "page.md"
        page.write_text(
            "[file](other.md) [heading](other.md#a-code-heading-part-2) [second](other.md#same-1) [web](https://x.y)\n"
            "`[not a link](nowhere.md)`\n```\n[nor this](nowhere.md)\n```\n# Here\n[here](#here)\n"
        )
        assert self.check(page).returncode == 0

    def test_broken_links_are_named_with_file_and_line(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text('# Here\n\n[gone](gone.md)\n[lost](#lost)\n<img src="picture.png">\n')
        done = self.check(page)
        assert done.returncode == 1
        assert f"{page}:3: 'gone.md' leads nowhere" in done.stdout
        assert f"{page}:4: '#lost' leads nowhere" in done.stdout
        assert f"{page}:5: 'picture.png' leads nowhere" in done.stdout


class TestClean:
    """`make clean` removes what was made, and nobody's work."""

    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        for name in ("scripts", ".venv/bin", ".ruff_cache", "var/demo/postgres", "var/cache", "platform/__pycache__"):
            (tmp_path / name).mkdir(parents=True)
        shutil.copy(REPOSITORY / "scripts" / "clean.py", tmp_path / "scripts")
        return tmp_path

    def clean(self, checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, checkout / "scripts" / "clean.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_everything_that_was_made_goes(self, checkout: Path) -> None:
        assert self.clean(checkout).returncode == 0
        assert sorted(path.name for path in checkout.iterdir()) == ["platform", "scripts"]
        assert not (checkout / "platform" / "__pycache__").exists()

    def test_data_of_make_serve_stays_unless_all_is_said(self, checkout: Path) -> None:
        (checkout / "var/serve/postgres").mkdir(parents=True)
        done = self.clean(checkout)
        assert "Kept var/serve" in done.stdout
        assert [path.name for path in (checkout / "var").iterdir()] == ["serve"]
        assert self.clean(checkout, "--all").returncode == 0
        assert not (checkout / "var").exists()

    def test_nothing_goes_while_servers_run(self, checkout: Path) -> None:
        note = checkout / "var/demo/postgres/instance.json"
        note.write_text(f'{{"pid": {os.getpid()}, "port": 1}}')
        done = self.clean(checkout)
        assert done.returncode == 1
        assert "servers are running in var/demo" in done.stderr
        assert (checkout / ".venv").exists()
