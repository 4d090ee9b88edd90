"""Servers never run as root, also when root starts them."""

import os
import pwd
import shutil
import subprocess
from functools import cache
from pathlib import Path

from devstack.errors import ServiceFailed


def unprivileged_prefix(folder: Path) -> list[str]:
    """The command prefix under which a server that writes below `folder` runs without root's rights.

    Empty for an ordinary user. For root, first choice is a user namespace in which we are an ordinary account: it
    needs no change of ownership and works below a home that only root may enter. Where user namespaces are blocked
    (containers, chroots), drop to the account itself, which must own the folder; if it cannot reach it, it keeps one
    of root's capabilities, that of passing through folders and reading.

    Raises:
        ServiceFailed: neither way works here.
    """
    if os.geteuid() != 0:
        return []
    account = _account()
    if _namespaces_work(account.pw_uid, account.pw_gid):
        return _namespace(account.pw_uid, account.pw_gid)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    drop = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    pass_through = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    for prefix in ([*drop, "--"], [*drop, *pass_through, "--"]):
        # `test -w` would not do: access(2) does not count capabilities.
        if _succeeds([*prefix, "sh", "-c", ': > "$0/.probe" && rm "$0/.probe"', str(folder)]):
            return prefix
    raise ServiceFailed(
        f"Servers must not run as root, and the account {account.pw_name!r} cannot reach {folder}: "
        "move the checkout to a folder every account may enter, or run the same command as an ordinary user."
    )


def namespace_prefix() -> list[str]:
    """The command prefix under which our own servers run without root's rights: a user namespace, else nothing.

    Unlike PostgreSQL they share files with commands that root runs, so dropping to another account is no way.
    """
    if os.geteuid() != 0:
        return []
    account = _account()
    works = _namespaces_work(account.pw_uid, account.pw_gid)
    return _namespace(account.pw_uid, account.pw_gid) if works else []


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceFailed("Neither the account 'postgres' nor 'nobody' exists, so no server can run: create one of them.")


def _namespace(uid: int, gid: int) -> list[str]:
    return ["unshare", "--user", f"--map-user={uid}", f"--map-group={gid}", "--"]


@cache
def _namespaces_work(uid: int, gid: int) -> bool:
    return _succeeds([*_namespace(uid, gid), "true"])


def _succeeds(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode
