#!/usr/bin/env python3
"""Set ThawLoop up on this machine: Python packages, Label Studio, PostgreSQL with PostGIS, Redis, Chromium.

Needs only a Python; runs as root or as an ordinary user; a second run finds everything there and ends in a second.
Kept to the syntax of Python 3.8, so that an unsupported Python gets a sentence instead of a syntax error.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "requirements"
PLATFORM = REPOSITORY / ".venv"
LABEL_STUDIO = REPOSITORY / ".venv-labelstudio"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
STARTED = time.monotonic()


class SetupFailed(Exception):
    """Setting up cannot go on; the message says why and what to do."""


def main():
    """Do every step; exit code 1 and one sentence when one cannot be done."""
    options = parse_options()
    try:
        uv, python = make_environment(options.managed_python)
        install(
            "Python packages", uv, PLATFORM, "dev.txt", ["--override", str(REQUIREMENTS / "overrides.txt"), "-e", "."]
        )
        if not options.without_labelstudio:
            if not (LABEL_STUDIO / "bin" / "python").exists():
                run("Label Studio's environment", [*uv, "venv", "-q", "--python", str(python), str(LABEL_STUDIO)])
            install("Label Studio", uv, LABEL_STUDIO, "labelstudio.txt", [])
    except SetupFailed as failure:
        print(f"make install: {failure}", file=sys.stderr)
        return 1
    services = [str(python), "-m", "devstack.install"] + ["--without-browser"] * options.without_browser
    code = subprocess.call(services, cwd=str(REPOSITORY))
    if code == 0:
        say("Everything is installed")
    return code


def parse_options():
    """The few choices there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-labelstudio", action="store_true", help="another machine runs Label Studio")
    parser.add_argument("--without-browser", action="store_true", help="no Chromium, hence no browser tests")
    parser.add_argument(
        "--managed-python", action="store_true", help="let uv download a Python when this machine has no supported one"
    )
    return parser.parse_args()


def make_environment(managed_python):
    """Make `.venv` with uv in it, unless it is there; return the uv command and the interpreter."""
    python = PLATFORM / "bin" / "python"
    if not works(python):
        if PLATFORM.exists():
            shutil.rmtree(str(PLATFORM))
        create_environment(find_python(managed_python))
    uv = PLATFORM / "bin" / "uv"
    if not uv.exists():
        on_path = shutil.which("uv")
        if on_path:
            return [on_path], python
        pin = next(line for line in read("dev.txt").splitlines() if line.startswith("uv=="))
        run("uv, which installs packages fast", [str(python), "-m", "pip", "install", "-q", pin])
    return [str(uv)], python


def create_environment(python):
    """Make `.venv` by the first way that works here: venv, uv, or venv after apt brought its missing half."""
    on_path = shutil.which("uv")
    if on_path:
        run("The Python environment .venv", [on_path, "venv", "-q", "--seed", "--python", python, str(PLATFORM)])
        return
    if can_import(python, "ensurepip"):
        run("The Python environment .venv", [python, "-m", "venv", str(PLATFORM)])
        return
    if can_import(python, "virtualenv"):
        run("The Python environment .venv", [python, "-m", "virtualenv", "-q", str(PLATFORM)])
        return
    if can_import(python, "pip"):  # Debian's pip without its venv
        run("The Python environment .venv", [python, "-m", "venv", "--without-pip", str(PLATFORM)])
        run("pip", [python, "-m", "pip", "--python", str(PLATFORM / "bin" / "python"), "install", "-q", "pip"])
        return
    remedy = "apt-get install python3-venv"
    root = [] if os.geteuid() == 0 else ["sudo", "-n"] if can_sudo() else None
    if root is not None and shutil.which("apt-get"):
        run("apt-get update", [*root, "apt-get", "-qq", "update"])
        run(remedy, [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qqy", "install", "python3-venv"])
        run("The Python environment .venv", [python, "-m", "venv", str(PLATFORM)])
        return
    raise SetupFailed(
        f"{python} has neither venv nor pip nor virtualenv, so no environment can be made: run `{remedy}` as root, "
        "then `make install` again."
    )


def find_python(managed_python):
    """The path of a supported Python: this one, another one on PATH, or (if permitted) one that uv downloads."""
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for major, minor in reversed(SUPPORTED):
        path = shutil.which(f"python{major}.{minor}")
        if path:
            return path
    versions = ", ".join("{}.{}".format(*version) for version in SUPPORTED)
    if managed_python:
        uv = shutil.which("uv")
        if uv is None:
            raise SetupFailed("--managed-python needs uv on PATH: install uv, then run `make install` again.")
        run("Python 3.11 by uv", [uv, "python", "install", "-q", "3.11"])
        return subprocess.check_output([uv, "python", "find", "3.11"], universal_newlines=True).strip()
    raise SetupFailed(
        f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported, and none of {versions} is on PATH: "
        "install one of them (on Debian and Ubuntu: apt-get install python3.11 python3.11-venv), "
        "then run `make install` again."
    )


def install(what, uv, environment, pins, extra):
    """Install pinned packages into an environment, unless exactly these were installed before."""
    stamp = environment / "thawloop-installed"
    wanted = fingerprint(read(pins), read("overrides.txt"), (REPOSITORY / "pyproject.toml").read_text())
    if stamp.exists() and stamp.read_text() == wanted:
        return
    python = ["--python", str(environment / "bin" / "python")]
    count = sum(1 for line in read(pins).splitlines() if "==" in line)
    run(
        f"{what} ({count} from requirements/{pins})",
        [*uv, "pip", "install", "-q", *python, "-r", str(REQUIREMENTS / pins), *extra],
    )
    stamp.write_text(wanted)


def read(name):
    """The text of a file in requirements/."""
    return (REQUIREMENTS / name).read_text()


def fingerprint(*texts):
    """Changes when a requirement changes, or the kind of torch that is asked for."""
    torch = os.environ.get("UV_TORCH_BACKEND", "")
    return hashlib.sha256("\0".join([*texts, torch]).encode()).hexdigest()


def works(python):
    """Whether this interpreter is there, runs, and is a supported one."""
    if not python.exists():
        return False
    done = subprocess.run([str(python), "-c", "import sys; print(*sys.version_info[:2])"], stdout=subprocess.PIPE)
    return done.returncode == 0 and tuple(map(int, done.stdout.split())) in SUPPORTED


def can_import(python, module):
    """Whether that interpreter has the module."""
    return subprocess.run([python, "-c", "import " + module], stderr=subprocess.DEVNULL).returncode == 0


def can_sudo():
    """Whether sudo works without asking for a password."""
    if shutil.which("sudo") is None:
        return False
    return subprocess.run(["sudo", "-n", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def run(what, command):
    """Run one step, say what it is and how long it took."""
    say(f"{what} ...")
    started = time.monotonic()
    done = subprocess.run(command, cwd=str(REPOSITORY), stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SetupFailed(
            "{} could not be installed: `{}` failed with exit code {} (its words are above). Is the network up?".format(
                what, " ".join(command[:6]), done.returncode
            )
        )
    say(f"{what}: done in {time.monotonic() - started:.0f} s")


def say(text):
    """A line of progress with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
