from django.apps import AppConfig


class TrainingConfig(AppConfig):
    """The training room."""

    name = "thawloop.training"
    label = "training"

    def ready(self) -> None:
        """Register what the reconciler process does for this room, and listen for labels."""
        from labeling.signals import labels_arrived
        from thawloop.core.reconciler import register_reconciler
        from thawloop.core.roles import grant_to_roles
        from thawloop.training.services import advance_all, apply_policies, ask_policy

        grant_to_roles(
            "training",
            lead={
                "add_retrainpolicy",
                "change_retrainpolicy",
                "add_retraining",
                "change_retraining",
                "start_retraining",
            },
        )
        register_reconciler("training.advance", advance_all, 10.0, by_campaign=True)
        register_reconciler("training.policy", apply_policies, 10.0, by_campaign=True)
        labels_arrived.connect(ask_policy, dispatch_uid="training.ask_policy")
