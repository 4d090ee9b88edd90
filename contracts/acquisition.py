"""How tiles can be chosen for annotation.

`entropy_disagreement_kcenter` takes the most uncertain tiles, thinned to those unlike each other and the labelled;
`uncertainty` the most uncertain; `kcenter` those most unlike each other and the labelled; `random` draws.
"""

from typing import Literal, get_args

Strategy = Literal["entropy_disagreement_kcenter", "uncertainty", "kcenter", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
DEFAULT_STRATEGY: Strategy = "entropy_disagreement_kcenter"
DEFAULT_POOL_FACTOR = 4.0  # `entropy_disagreement_kcenter` thins this many times the batch's most uncertain tiles
