"""The process that a comparison's trainings are forked from: ``python -m ml_backend.detector.comparison.worker``.

It imports the libraries once, reads the folder of one run per line of stdin, forks, and writes to stdout, one JSON
value per line, the progress of the fork, ``[share, text]``, and its exit code, ``{"code": 0}``. So each training has
its own process, with its own peak memory, and can crash without affecting others, but the imports are done only once.
Nothing is computed before a fork, because OpenMP's threads do not survive it.
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
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not mix with the answers
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
    """In the fork: train, with output redirected to the run's log."""
    code = 1
    try:
        with (folder / LOG).open("w", encoding="utf-8") as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
            os.dup2(log.fileno(), sys.stderr.fileno())
        threading.Thread(target=_end_with_comparison, daemon=True).start()
        code = main(folder, lambda share, text: _answer(answers, [share, text]))
    except BaseException:  # noqa: BLE001  (a fork must never return into its parent's loop; the log has the traceback)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with_comparison() -> None:
    """Exit when the comparison's process has ended: otherwise its next start would train in the same folder."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    serve()
