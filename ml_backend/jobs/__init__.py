"""The jobs that use the detector and acquisition; workers import them by dotted path.

Each loads its row, calls the detector or acquisition and passes the result to a service. Importing this package imports
neither torch nor mmdet, so that a worker's parent, the web process and the reconciler can import it.
"""

from ml_backend.jobs.acquisition import acquire
from ml_backend.jobs.evaluation import evaluate
from ml_backend.jobs.prediction import predict
from ml_backend.jobs.training import finetune, pretrain

__all__ = ["acquire", "evaluate", "finetune", "predict", "pretrain"]
