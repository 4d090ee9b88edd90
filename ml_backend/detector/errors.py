"""The detector's errors; their texts are sentences that name the file and the remedy."""

from __future__ import annotations

from contracts.sentences import one_sentence


class DetectorError(Exception):
    """Base of all errors that a user can act on; its text is one sentence."""

    def __str__(self) -> str:
        """The text as one line, whatever it quotes."""
        return one_sentence(super().__str__())


class DatasetError(DetectorError):
    """A dataset directory is incomplete, damaged or inconsistent."""


class ConfigError(DetectorError):
    """A detector configuration is contradictory or does not fit the dataset."""


class FolderInUseError(ConfigError):
    """Another process works in the folder, which is free again when that process ends."""


class CannotResumeError(DetectorError):
    """A folder's resume state is damaged, or belongs to other work; it can only be discarded."""


class CheckpointError(DetectorError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class DeviceError(DetectorError):
    """The requested device does not exist or has too little memory."""


class ExportError(DetectorError):
    """A checkpoint cannot be exported, or the exported model computes something else."""


class PromptError(DetectorError):
    """A box prompt is not a box on the tile, or its class is unknown."""


class TrainingDivergedError(DetectorError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class TrainingStoppedError(DetectorError):
    """Training was asked to stop; the same call continues it."""


class AnotherProcessFailedError(DetectorError):
    """In a training of several processes, another one has reported the error to the user."""
