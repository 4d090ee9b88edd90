"""Running the trainings of a comparison in worker processes, several at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.comparison.plan import Run
from ml_backend.detector.comparison.run import FAILURE, LOG, RESULT, SPEC, Spec
from ml_backend.detector.progress import Progress, silent

SOURCE_ROOT = Path(__file__).resolve().parents[3]
WORKER_LOG = "worker.log"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Schedule:
    """Runs every training without a result; one that fails leaves a message and stops only those that start from it.

    Attributes:
        folder: each run has its own folder in it.
        dataset: dataset directory.
        split: what the trained detectors are measured on.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        jobs: number of trainings at the same time.
        progress: called with the share done of the whole (0..1) and a line of text.
    """

    folder: Path
    dataset: Path
    split: str
    device: str = "auto"
    jobs: int = 1
    progress: Progress = silent
    _shares: dict[str, float] = field(default_factory=dict)
    _weights: dict[str, float] = field(default_factory=dict)
    _workers: list[Any] = field(default_factory=list)
    _idle: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def threads(self) -> int:
        """CPU threads of each training; OMP_NUM_THREADS overrides it."""
        return int(os.environ.get("OMP_NUM_THREADS") or max(1, cores() // self.jobs))

    def finished(self, name: str) -> bool:
        """Whether the run of that name has a result."""
        return (self.folder / name / RESULT).is_file()

    def run_all(self, runs: Sequence[Run]) -> None:
        """Run those without a result; runs that others start from must come before them."""
        self._shares = {run.name: float(self.finished(run.name)) for run in runs}
        total = sum(run.cost for run in runs)
        self._weights = {run.name: run.cost / total for run in runs}
        ended: dict[str, Future[None]] = {}
        pool = ThreadPoolExecutor(self.jobs)
        try:
            # a run waits in its slot for those it starts from; the pool starts in this order, so those are running
            for run in sorted(runs, key=lambda run: run.kind != "pretrain"):
                if not self.finished(run.name):
                    before = [ended[name] for name in run.init.values() if name in ended]
                    ended[run.name] = pool.submit(self._run_one, run, before)
            for future in ended.values():
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in self._workers:
                worker.kill()
                worker.stdin.close()  # at end of file the forked training stops, too
            pool.shutdown()
            for worker in self._workers:
                with worker:  # closes its pipes and waits for it
                    pass

    def _run_one(self, run: Run, before: Sequence[Future[None]]) -> None:
        for future in before:
            future.result()
        folder = self.folder / run.name
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (FAILURE, LOG):
            (folder / stale).unlink(missing_ok=True)
        missing = [name for name in run.init.values() if not self.finished(name)]
        if missing:
            self._fail(run, f"It starts from {missing[0]}, which failed.")
        else:
            init = {m: str((self.folder / name / "training" / "checkpoint").resolve()) for m, name in run.init.items()}
            spec = Spec(str(self.dataset.resolve()), run.config, init, self.split, self.device)
            replace_file(folder / SPEC, json.dumps(spec.to_json(), indent=2).encode())
            self._follow(run)
        self._report(run, 1.0, "done" if self.finished(run.name) else "failed")

    def _follow(self, run: Run) -> None:
        """Have a worker do the run, and pass on its progress."""
        folder = self.folder / run.name
        with self._worker() as worker:
            worker.stdin.write(f"{folder.resolve()}\n")
            worker.stdin.flush()
            code = None
            while code is None:
                line = worker.stdout.readline()
                answer = json.loads(line) if line else {"code": worker.wait()}
                if isinstance(answer, dict):
                    code = answer["code"]
                else:
                    self._report(run, *answer)
        if not self.finished(run.name) and not (folder / FAILURE).is_file():
            log = folder / LOG
            self._fail(run, _why_it_ended(code, log if log.is_file() else self.folder / WORKER_LOG))

    @contextmanager
    def _worker(self) -> Iterator[Any]:
        """An idle worker process, started if there is none."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None or worker.poll() is not None:
            worker = self._start()
        yield worker
        with self._lock:
            self._idle.append(worker)

    def _start(self) -> Any:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(SOURCE_ROOT), os.environ.get("PYTHONPATH")))),
        }
        command = [sys.executable, "-P", "-m", "ml_backend.detector.comparison.worker"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (self.folder / WORKER_LOG).open("a", encoding="utf-8") as log:
            worker = subprocess.Popen(command, stderr=log, env=environment, **pipes)
        self._workers.append(worker)
        return worker

    def _fail(self, run: Run, sentence: str) -> None:
        replace_file(self.folder / run.name / FAILURE, sentence.encode())

    def _report(self, run: Run, share: float, text: str) -> None:
        with self._lock:
            self._shares[run.name] = share
            done = sum(value == 1 for value in self._shares.values())
            total = sum(self._weights[name] * value for name, value in self._shares.items())
            self.progress(min(total, 1.0), f"{done}/{len(self._weights)} trainings; {run.name}: {text}")


def _why_it_ended(code: int, log: Path) -> str:
    """Why a process ended that left no message."""
    if code < 0:
        return (
            f"Its process was ended by signal {-code} (9 usually means that memory ran out): the same command "
            "continues it; run fewer at a time or take a smaller batch size."
        )
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"Its process ended with code {code} ({lines[-1] if lines else 'without output'}): see {log}."
