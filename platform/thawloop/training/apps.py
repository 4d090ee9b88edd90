from django.apps import AppConfig


class TrainingConfig(AppConfig):
    """The training room."""

    name = "thawloop.training"
    label = "training"

    def ready(self) -> None:
        """Register what the reconciler process does for this room."""
        from thawloop.core.reconciler import register_reconciler
        from thawloop.training.services import advance_all, apply_policies

        register_reconciler("training.advance", advance_all, 10.0)
        register_reconciler("training.policy", apply_policies, 10.0)
