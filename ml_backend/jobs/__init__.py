"""What workers run with the detector and with acquisition, by dotted path.

Thin: load the row, call the detector or acquisition, hand the result to a service. Importing this package imports
neither torch nor mmdet, so that a worker's parent, the web process and the reconciler may look at its functions.
"""

from ml_backend.jobs.acquisition import acquire
from ml_backend.jobs.evaluation import evaluate
from ml_backend.jobs.prediction import predict
from ml_backend.jobs.training import finetune, pretrain

__all__ = ["acquire", "evaluate", "finetune", "predict", "pretrain"]
