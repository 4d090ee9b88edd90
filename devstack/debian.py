"""Brings Debian and Ubuntu packages onto this machine: with root's rights, with sudo, or unpacked into a folder."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from devstack.binaries import unpacked_root
from devstack.errors import ServiceMissing
from devstack.paths import system_dir

# While packages are installed, none of their servers is started: we run private ones.
_INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\\nexit 101\\n' > $policy; chmod 755 $policy; trap "rm -f $policy" EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install "$@" >/dev/null
"""


def has_apt() -> bool:
    """Whether this system has Debian's package manager."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def way() -> str:
    """How packages get here: "root", "sudo" or "unpack" (into a private folder, without root)."""
    if os.geteuid() == 0:
        return "root"
    if shutil.which("sudo") and _succeeds(["sudo", "-n", "true"]):
        return "sudo"
    return "unpack"


def install(packages: Sequence[str]) -> None:
    """Install packages by the best way there is; names may be patterns like `postgresql-[0-9]+-postgis-3` (newest).

    Raises:
        ServiceMissing: apt refused; its words are in the message.
    """
    how = way()
    if how == "unpack":
        _unpack(packages)
        return
    prefix = ["sudo", "-n"] if how == "sudo" else []
    if any(_is_pattern(name) for name in packages):
        _run([*prefix, "apt-get", "-qq", "update"])
    names = [_newest(name, []) if _is_pattern(name) else name for name in packages]
    _run([*prefix, "sh", "-c", _INSTALL, "install", *names])


def _unpack(packages: Sequence[str]) -> None:
    """Download packages and what they need beyond what is installed, and unpack them below `var/system/root`."""
    folder = system_dir()
    lists, archives = folder / "apt/lists", folder / "apt/cache/archives"
    for path in (lists / "partial", archives / "partial", unpacked_root()):
        path.mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={archives.parent}", "-o", "Debug::NoLocking=1"]
    _run(["apt-get", "-qq", *options, "update"])
    names = [_newest(name, options) if _is_pattern(name) else name for name in packages]
    plan = _run(["apt-get", *options, "-s", "install", "--no-install-recommends", *names])
    needed = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    downloads = folder / "debs"
    downloads.mkdir(exist_ok=True)
    if needed:
        _run(["apt-get", "-qq", *options, "download", *needed], cwd=downloads)
    for package in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(unpacked_root())])
    shutil.rmtree(downloads)
    _link_postgis()
    (folder / "fonts.conf").write_text(
        f"<fontconfig><dir>{unpacked_root()}/usr/share/fonts</dir><dir>/usr/share/fonts</dir></fontconfig>\n"
    )


def _link_postgis() -> None:
    """Give PostGIS's control files their plain names, which the package's own set-up step would have done."""
    for control in unpacked_root().glob("usr/share/postgresql/*/extension/*-3.control"):
        link = control.with_name(control.name.replace("-3.control", ".control"))
        if not link.exists():
            link.symlink_to(control.name)


def _is_pattern(name: str) -> bool:
    return "[" in name


def _newest(pattern: str, options: Sequence[str]) -> str:
    found = _run(["apt-cache", *options, "search", "--names-only", f"^{pattern}$"])
    names = [line.split()[0] for line in found.splitlines() if line.strip()]
    if not names:
        raise ServiceMissing(f"apt knows no package {pattern}: add a package source that has PostGIS.")
    return max(names, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise ServiceMissing(f"`{' '.join(command[:3])} ...` failed: {words}")
    return done.stdout


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
