"""The private side of a training's folder: which training it holds, its resume state, and whether it is finished."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from contracts.checkpoint import CARD_FILE, LOG_FOLDER
from ml_backend.detector.checkpoint import replace_file
from ml_backend.detector.errors import CannotResumeError
from ml_backend.detector.lock import alone_in
from ml_backend.detector.training.result import TrainResult


class RunFolder:
    """``run.json`` (identity), ``state.pth`` (to resume), ``result.json`` (once finished), ``checkpoint/``, ``log/``,
    a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self._identity = path / "run.json"
        self._state = path / "state.pth"
        self._result = path / "result.json"

    def alone(self) -> AbstractContextManager[None]:
        """Make the folder and hold it, so that no other process trains in it; the lock ends with the process.

        Raises:
            FolderInUseError: another one does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return alone_in(
            self.path, f"Another process is training in {self.path}: wait for it or give another output folder."
        )

    def claim(self, identity: Mapping[str, Any], *, discard: bool = False) -> None:
        """Make the folder this training's own.

        Args:
            identity: what tells trainings apart, as JSON.
            discard: whether what it holds is to be removed.

        Raises:
            CannotResumeError: the folder holds another training, or does not say which.
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
        """The result, once the training has ended.

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
        """Write the resume state so that a crash, of the machine too, leaves the old or the new one."""
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
            with zipfile.ZipFile(self._state) as archive:  # torch's format; it has checksums, which torch ignores
                if archive.testzip() is not None:
                    raise _damaged(self._state)
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError):
            raise _damaged(self._state) from None
        return state

    def not_of_this_model(self) -> CannotResumeError:
        """What to say of a sound resume state that does not fit the model."""
        return _damaged(self._state, "was written by another version")

    def publish_log(self) -> None:
        """Let the log travel with the checkpoint."""
        shutil.rmtree(self.checkpoint / LOG_FOLDER, ignore_errors=True)
        shutil.copytree(self.path / LOG_FOLDER, self.checkpoint / LOG_FOLDER)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Record the result and drop the resume state, which is of no use any more."""
        replace_file(self._result, json.dumps(result, indent=2).encode())
        self._state.unlink(missing_ok=True)


def _damaged(file: Path, how: str = "is damaged") -> CannotResumeError:
    return CannotResumeError(f"{file} {how}: start again with resume=False (--no-resume) or in another folder.")
