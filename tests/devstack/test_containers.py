"""docker-compose.yml, the Dockerfiles, the proxy and .env.example agree with each other and with the code."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted((REPOSITORY / "docker").glob("*.Dockerfile"))
PROGRAMS = Path(sys.executable).parent


def documented_variables() -> set[str]:
    return set(re.findall(r"^#?\s*([A-Z][A-Z0-9_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE))


def interpolated(value: str) -> str:
    """A value as compose would see it without an `.env`: `${NAME:-default}` becomes the default."""
    return re.sub(
        r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}", lambda m: m.group(3) if m.group(2) == "-" else m.group(1), value
    )


def test_compose_file_is_valid() -> None:
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, REPOSITORY / "docker-compose.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_has_no_complaints(dockerfile: Path) -> None:
    done = subprocess.run([PROGRAMS / "hadolint", dockerfile], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_a_dockerfile_copies_exists_and_is_not_ignored(dockerfile: Path) -> None:
    let_in = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [
        source
        for arguments in re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE)
        for source in arguments.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert Path(source).parts[0] in let_in, source


def test_every_dockerfile_is_used_and_every_used_one_exists() -> None:
    used = {REPOSITORY / service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service}
    assert used == set(DOCKERFILES)


@pytest.mark.parametrize("name", SERVICES)
def test_services_wait_only_for_services_that_can_reach_the_state_waited_for(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        if wait["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        if wait["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_declared_and_mounted_files_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = interpolated(volume).split(":")[0]
        if source == "./data":
            continue  # the user's folder; docker makes it
        if source.startswith("."):
            assert (REPOSITORY / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source


def test_every_declared_volume_is_used() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= mounted


def test_addresses_between_containers_name_services_or_aliases() -> None:
    aliases = {
        alias
        for service in SERVICES.values()
        for network in (service.get("networks") or {}).values()
        for alias in network["aliases"]
    }
    environment = SERVICES["web"]["environment"]
    for name in ("DATABASE_URL", "REDIS_URL", "LABEL_STUDIO_URL", "THAWLOOP_CALLBACK_URL", "ML_BACKEND_URL"):
        host = re.sub(r":\d+(/\w+)?$", "", interpolated(environment[name]).split("//")[1].split("@")[-1])
        assert host in SERVICES.keys() | aliases, name
    for name in ("THAWLOOP_CALLBACK_URL", "ML_BACKEND_URL"):  # Label Studio refuses hosts without a dot
        assert "." in environment[name].split("//")[1].split(":")[0]
    proxy = (REPOSITORY / "docker/proxy/nginx.conf").read_text()
    assert len(re.findall(r"set \$\w+ http://([a-z-]+)", proxy)) == 2
    for host in re.findall(r"set \$\w+ http://([a-z-]+)", proxy):
        assert host in SERVICES
        assert host in SERVICES["proxy"]["depends_on"]


def test_health_checks_reach_their_own_host_name() -> None:
    for name, setting in (("web", "DJANGO_ALLOWED_HOSTS"), ("label-studio", "ALLOWED_HOSTS")):
        given = SERVICES[name]["environment"][setting].split("}")[1]  # whatever .env says about the rest
        host = re.search(r"urlopen\('http://([^:/]+)", SERVICES[name]["healthcheck"]["test"][-1])
        assert host is not None
        assert host.group(1) in given.split(",")


def test_only_the_proxy_has_a_port_and_it_is_on_loopback_by_default() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert [interpolated(port) for port in SERVICES["proxy"]["ports"]] == ["127.0.0.1:8080:8080"]


def test_every_queue_has_a_worker() -> None:
    from thawloop.core.models import QUEUES

    commands = [service.get("command", []) for service in SERVICES.values()]
    dockerfile = (REPOSITORY / "docker/worker-gpu.Dockerfile").read_text()
    for queue in QUEUES:
        assert any(command[-2:] == ["--queue", queue] for command in commands) or f'"--queue", "{queue}"' in dockerfile


def test_no_image_is_without_a_version() -> None:
    for service in SERVICES.values():
        if "build" not in service:
            assert re.search(r":\d", service["image"]), service["image"]


# Settings that containers do not get, and why.
NOT_FOR_CONTAINERS = {
    "DJANGO_DEBUG": "never on a server",
    "GDAL_LIBRARY_PATH": "the image has the wheels' libraries",
    "GEOS_LIBRARY_PATH": "the image has the wheels' libraries",
    "THAWLOOP_ENV_FILE": "compose reads .env",
    "THAWLOOP_VAR": "set by the Dockerfiles",
}
# What other programs in the containers read: gunicorn, prometheus, botocore and GDAL.
NOT_SETTINGS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "FORWARDED_ALLOW_IPS",
    "THAWLOOP_WEB_PROCESSES", "DJANGO_SUPERUSER_PASSWORD",
}  # fmt: skip
OURS = [name for name, service in SERVICES.items() if "thawloop/platform" in service["image"] or "gpu" in name]


def settings_read() -> set[str]:
    settings = (REPOSITORY / "platform/thawloop/settings.py").read_text()
    return set(re.findall(r"env\.\w+\(\s*\"([A-Z_]+)\"", settings))


@pytest.mark.parametrize("name", [*OURS, "ml-backend"])
def test_every_setting_reaches_the_containers(name: str) -> None:
    given = set(SERVICES[name]["environment"])
    assert settings_read() - given == set(NOT_FOR_CONTAINERS)
    assert given <= settings_read() | NOT_SETTINGS
    for variable, value in SERVICES[name]["environment"].items():
        fixed = value is not None and "${" not in value
        assert not (fixed and variable in documented_variables()) or variable in FIXED, variable


# Documented for other installations; compose knows them itself.
FIXED = {"ML_BACKEND_URL", "LABEL_STUDIO_URL", "THAWLOOP_CALLBACK_URL", "FORWARDED_ALLOW_IPS"}


def test_example_file_documents_every_setting_and_every_variable_of_the_compose_file() -> None:
    read = settings_read()
    used = set(re.findall(r"\$\{([A-Z_]+)", (REPOSITORY / "docker-compose.yml").read_text()))
    local = "\n".join(path.read_text() for path in (REPOSITORY / "devstack").glob("**/*.py"))
    own = set(re.findall(r"environ(?:\.get\(|\[)\"((?:THAWLOOP|CHROMIUM)_[A-Z_]+)\"", local))
    inside_containers = {"THAWLOOP_LABELSTUDIO_WORKERS"}
    missing = (read | used | own) - documented_variables() - inside_containers
    assert not missing


def test_example_file_sets_nothing_that_a_setting_does_not_read() -> None:
    code = "\n".join(
        path.read_text()
        for folder in ("platform", "labeling", "ml_backend", "devstack", "docker", "scripts", "tests")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".Dockerfile", ".sh"}
    )
    code += (REPOSITORY / "docker-compose.yml").read_text()
    assert len(documented_variables()) > 40
    assert not [name for name in documented_variables() if name not in code]
