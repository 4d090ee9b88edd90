"""The folder of a training: its identity, resume state, result and lock."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from contracts.checkpoint import CARD_FILE, LOG_FOLDER
from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.errors import CannotResumeError
from ml_backend.detector.lock import lock_folder


@dataclass(frozen=True)
class TrainResult:
    """The result of a finished training.

    Attributes:
        checkpoint: folder of the published checkpoint.
        metrics: of the validation split (:meth:`Evaluation.summary`); empty when there is none.
        seconds: of training and evaluation, including those before interruptions.
        peak_memory_mb: of the GPU during this training; on a CPU, of the process since it started.
        iterations: optimizer steps done.
    """

    checkpoint: Path
    metrics: dict[str, Any]
    seconds: float
    peak_memory_mb: float
    iterations: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "checkpoint": str(self.checkpoint)}


class RunFolder:
    """Holds ``run.json`` (identity), ``state.pth`` (resume state), ``result.json`` (once finished), ``checkpoint/``,
    ``log/`` and a lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self._identity = path / "run.json"
        self._state = path / "state.pth"
        self._result = path / "result.json"

    def lock(self) -> AbstractContextManager[None]:
        """Create the folder and lock it, so that no other process trains in it; the lock ends with the process.

        Raises:
            FolderInUseError: another process holds the lock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return lock_folder(
            self.path, f"Another process is training in {self.path}: wait for it or give another output folder."
        )

    def claim(self, identity: Mapping[str, Any], *, discard: bool = False) -> None:
        """Record the identity of this training, after checking that the folder holds no other one.

        Args:
            identity: what distinguishes trainings, as JSON.
            discard: whether to remove an earlier training first.

        Raises:
            CannotResumeError: the folder holds another training, or one without identity.
        """
        if discard:
            for file in (self._result, self._state, self._identity):
                file.unlink(missing_ok=True)
            for folder in (self.checkpoint, self.path / LOG_FOLDER):
                shutil.rmtree(folder, ignore_errors=True)
        text = json.dumps(identity, indent=2, sort_keys=True)
        worked = self._state.is_file() or self._result.is_file()
        if worked and not self._identity.is_file():
            raise _damaged(self._identity, "is missing")
        if worked and self._identity.read_bytes() != text.encode():
            raise CannotResumeError(
                f"{self.path} holds a training with another configuration, dataset, start or version: "
                "give another output folder, or discard it with resume=False (--no-resume)."
            )
        replace_file(self._identity, text.encode())

    def finished(self) -> dict[str, Any] | None:
        """The result as JSON, if the training is finished.

        Raises:
            CannotResumeError: it is damaged.
        """
        if not self._result.is_file() or not (self.checkpoint / CARD_FILE).is_file():
            return None
        try:
            result = json.loads(self._result.read_bytes())
        except ValueError:
            raise _damaged(self._result) from None
        if not isinstance(result, dict) or set(result) != {field.name for field in fields(TrainResult)}:
            raise _damaged(self._result)
        return result

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the resume state atomically: after a crash, even of the machine, it is the old or the new one."""
        temporary = self._state.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._state)

    def load_state(self) -> dict[str, Any] | None:
        """The resume state, on the CPU, or None; only tensors and plain data are accepted, nothing is executed.

        Raises:
            CannotResumeError: it is damaged.
        """
        if not self._state.is_file():
            return None
        try:
            with zipfile.ZipFile(self._state) as archive:  # torch's format has checksums, which torch does not verify
                if archive.testzip() is not None:
                    raise _damaged(self._state)
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError):
            raise _damaged(self._state) from None
        return state

    def not_of_this_model(self) -> CannotResumeError:
        """The error for an undamaged resume state that does not fit the model."""
        return _damaged(self._state, "was written by another version")

    def publish_log(self) -> None:
        """Copy the log into the folder of the checkpoint."""
        shutil.rmtree(self.checkpoint / LOG_FOLDER, ignore_errors=True)
        shutil.copytree(self.path / LOG_FOLDER, self.checkpoint / LOG_FOLDER)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Record the result and remove the resume state."""
        replace_file(self._result, json.dumps(result, indent=2).encode())
        self._state.unlink(missing_ok=True)


def _damaged(file: Path, how: str = "is damaged") -> CannotResumeError:
    return CannotResumeError(f"{file} {how}: start again with resume=False (--no-resume) or in another folder.")
