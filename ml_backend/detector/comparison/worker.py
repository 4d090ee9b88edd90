"""The process that a comparison's trainings are forked from: ``python -m ml_backend.detector.comparison.worker``.

It imports the libraries once, reads one run's folder per line of stdin, forks, and says on stdout, one JSON value per
line, how far the fork is, ``[share, text]``, and how it ended, ``{"code": 0}``. Each training so has a process of its
own, whose largest resident memory is its own need and whose death takes nothing with it, without paying for the imports
every time. Nothing is computed before a fork: OpenMP's threads do not survive it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from ml_backend.detector.comparison.run import LOG, main

PRELOADED = ("ml_backend.detector.comparison.complexity", "ml_backend.detector.training")


def serve() -> None:
    """Answer every folder with the exit code of its training, until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no answer
    for module in PRELOADED:
        importlib.import_module(module)
    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        pid = os.fork()
        if pid == 0:
            _train_and_exit(folder, answers)
        _, status = os.waitpid(pid, 0)
        _answer(answers, {"code": os.waitstatus_to_exitcode(status)})


def _answer(answers: TextIO, value: Any) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _train_and_exit(folder: Path, answers: TextIO) -> None:
    """In the fork: what is printed goes to the run's own log."""
    code = 1
    try:
        with (folder / LOG).open("w", encoding="utf-8") as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
            os.dup2(log.fileno(), sys.stderr.fileno())
        threading.Thread(target=_end_with_comparison, daemon=True).start()
        code = main(folder, lambda share, text: _answer(answers, [share, text]))
    except BaseException:  # noqa: BLE001  (a fork must never return into its parent's loop; the log says what it was)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with_comparison() -> None:
    """Stop when the comparison is gone: its next start would train in the same folder."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    serve()
