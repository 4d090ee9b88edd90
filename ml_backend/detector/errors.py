"""What can go wrong for a user of the detector, as sentences that name the file and the remedy."""

from __future__ import annotations

from contracts.sentences import one_sentence


class DetectorError(Exception):
    """Base of every refusal of the detector; its text is one sentence a user can act on."""

    def __str__(self) -> str:
        """One line, whatever the sentence quotes."""
        return one_sentence(super().__str__())


class DatasetError(DetectorError):
    """A dataset directory does not keep its contract."""


class ConfigError(DetectorError):
    """A detector configuration is contradictory or does not fit the dataset."""


class FolderInUseError(ConfigError):
    """Another process works in the folder, which is free again when that one ends."""


class CannotResumeError(DetectorError):
    """What a folder holds of an earlier training is damaged, or of another one; it can only be discarded."""


class CheckpointError(DetectorError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class DeviceError(DetectorError):
    """The requested device does not exist or has too little memory."""


class ExportError(DetectorError):
    """A checkpoint cannot be exported, or what was exported computes something else."""


class PromptError(DetectorError):
    """A box that somebody drew is no box on the tile, or its class is unknown."""


class TrainingDivergedError(DetectorError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class TrainingStoppedError(DetectorError):
    """Training was asked to stop; the same call continues it."""


class AnotherProcessFailedError(DetectorError):
    """In a training of several processes, another one has told the user what went wrong."""
