"""Questions about models, learning and the retrain policy."""

from thawloop.training.selectors.curve import LearningPoint, learning_curve
from thawloop.training.selectors.outlook import Outlook, obstacle, outlook
from thawloop.training.selectors.policy import PolicyExplanation, explain_policy, may_be_due
from thawloop.training.selectors.state import CampaignState
from thawloop.training.selectors.succession import active_retraining, is_predicting

__all__ = [
    "CampaignState",
    "LearningPoint",
    "Outlook",
    "PolicyExplanation",
    "active_retraining",
    "explain_policy",
    "is_predicting",
    "learning_curve",
    "may_be_due",
    "obstacle",
    "outlook",
]
