"""Every change of state in the training room: policies, retrainings, runs and the gate."""

from thawloop.training.services.gate import GAIN_OVER, decide, judge, missing_evaluations, record_evaluation
from thawloop.training.services.policies import ask_policy, set_policy
from thawloop.training.services.results import (
    attach_release,
    finish_evaluation,
    finish_predicting,
    finish_run,
    work_folder,
)
from thawloop.training.services.retrainings import (
    advance_all,
    apply_policies,
    cancel_retraining,
    consider_retraining,
    retry_retraining,
    start_retraining,
)
from thawloop.training.services.runs import settle_anchor
from thawloop.training.services.steps import advance_retraining, step_failed

__all__ = [
    "GAIN_OVER",
    "advance_all",
    "advance_retraining",
    "apply_policies",
    "ask_policy",
    "attach_release",
    "cancel_retraining",
    "consider_retraining",
    "decide",
    "finish_evaluation",
    "finish_predicting",
    "finish_run",
    "judge",
    "missing_evaluations",
    "record_evaluation",
    "retry_retraining",
    "set_policy",
    "settle_anchor",
    "start_retraining",
    "step_failed",
    "work_folder",
]
