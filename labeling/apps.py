from django.apps import AppConfig


class LabelingConfig(AppConfig):
    name = "labeling"
    label = "labeling"

    def ready(self) -> None:
        """Register what this room checks and mends."""
        from labeling.labelstudio.health import check_exchange, check_label_studio
        from labeling.labelstudio.sync import reconcile, reconcile_events
        from thawloop.core.reconciler import register_reconciler
        from thawloop.core.roles import grant_to_roles
        from thawloop.core.selectors import register_health_check

        grant_to_roles(
            "labeling",
            reviewer={"change_label", "add_labelrevision"},
            lead={
                "add_acquisitionbatch",
                "add_annotationtask",
                "change_annotationtask",
                "add_labelimport",
                "withdraw_labelimport",
            },
        )
        register_health_check("label_studio", check_label_studio, required=False)
        register_health_check("label_studio_exchange", check_exchange, required=False)
        register_reconciler("labeling.sync", reconcile, 30, by_campaign=True)
        register_reconciler("labeling.events", reconcile_events, 5, by_campaign=True)
