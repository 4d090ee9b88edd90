"""What is in the checkpoints that trainings leave."""

import torch

from ml_backend.detector import TrainResult, open_checkpoint

BRANCH = "backbone.branches.{}."  # how the weights of a modality's backbone are called


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return open_checkpoint(result.checkpoint).weights()
