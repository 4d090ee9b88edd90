"""Runs mypy twice: strictly where wrong types cost most, plainly everywhere else.

Strict: the detector, acquisition, and every `services.py` and `selectors.py` (or package of that name).
"""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROOTS = ("contracts", "platform/thawloop", "labeling", "ml_backend", "devstack", "demo")
STRICT_NAMES = ("services", "selectors")


def main() -> int:
    """Exit code 1 when either run finds something."""
    codes = [run("strict", ["--strict", *strict_paths()]), run("plain", list(ROOTS))]
    return max(codes)


def strict_paths() -> list[str]:
    """What must be strict, as paths from the repository's root."""
    found = [
        Path("contracts"),
        Path("ml_backend/detector"),
        Path("ml_backend/acquisition"),
        Path("devstack"),
    ]
    for root in ROOTS:
        for name in STRICT_NAMES:
            found += [path.relative_to(REPOSITORY) for path in (REPOSITORY / root).rglob(f"{name}.py")]
            found += [path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / root).rglob(f"{name}/__init__.py")]
    return sorted(str(path) for path in found)


def run(kind: str, arguments: list[str]) -> int:
    """Run mypy, say what it was about."""
    print(f"mypy, {kind}:", flush=True)
    return subprocess.run([sys.executable, "-m", "mypy", *arguments], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
