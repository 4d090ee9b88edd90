"""`make clean`: removes what `make install`, `make demo` and the tests made in this checkout.

What `make serve` keeps in `var/serve` is somebody's work: it goes only with `--all`.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MADE = [".venv", ".venv-labelstudio", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache"]
MADE += [".hypothesis"]
KEPT = {"serve", "secrets"}


def main() -> int:
    """Remove it and say so; refuse (exit code 1) while servers run below `var/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the data of `make serve` too")
    everything = parser.parse_args().all
    var = REPOSITORY / "var"
    running = [note for note in var.glob("*/*/instance.json") if runs(note)]
    if running:
        folder = running[0].parent.parent.relative_to(REPOSITORY)
        print(f"make clean: servers are running in {folder}: end them (Ctrl-C where they run) first.", file=sys.stderr)
        return 1
    keep = KEPT if (var / "serve").exists() and not everything else set()
    for path in [*(REPOSITORY / name for name in MADE), *REPOSITORY.rglob("__pycache__"), *var.glob("*")]:
        if path.exists() and not (path.parent == var and path.name in keep):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if keep:
        print("Kept var/serve, the data of `make serve`; `make clean ALL=1` removes it too.")
    elif var.exists():
        var.rmdir()
    return 0


def runs(note: Path) -> bool:
    """Whether the server that left this note still runs."""
    try:
        os.kill(json.loads(note.read_text())["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
