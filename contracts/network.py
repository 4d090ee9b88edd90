"""The networks there are: sizes, ways to join modalities, and the version of what these mean."""

from typing import Literal, get_args

# Raised when the same settings build another network: weights of another version are nothing to start from.
NETWORK_VERSION = 3

Size = Literal["nano", "tiny", "small", "base"]
SIZES: tuple[Size, ...] = get_args(Size)

Fusion = Literal["residual_cross_attention", "cross_attention", "conv", "channel_attention", "cbam", "stack"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


def stacks_bands(fusion: str) -> bool:
    """Whether a fusion stacks the bands of all modalities for one backbone, and so has none per modality."""
    return fusion == "stack"
