from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate


class CoreConfig(AppConfig):
    name = "thawloop.core"
    label = "core"

    def ready(self) -> None:
        """Register what core checks, mends and measures."""
        from thawloop.core import metrics, roles, selectors
        from thawloop.core.jobs import reconcile_jobs
        from thawloop.core.reconciler import register_reconciler
        from thawloop.core.storage import sweep_leftovers

        selectors.register_health_check("postgres", selectors.check_postgres)
        selectors.register_health_check("redis", selectors.check_redis)
        selectors.register_health_check("storage", selectors.check_storage)
        selectors.register_health_check("workers", selectors.check_workers, required=False)
        selectors.register_health_check("reconciler", selectors.check_reconciler, required=False)
        register_reconciler("core.jobs", reconcile_jobs, settings.THAWLOOP_RECONCILE_SECONDS)
        register_reconciler("core.storage", sweep_leftovers, 3600)
        roles.grant_to_roles(
            "core",
            lead={"change_job", "view_auditentry"},
            seen_by_leads_only={"view_auditentry"},
            seen_by_admins_only={"view_apitoken", "view_loginfailure"},
        )
        post_migrate.connect(roles.grant, dispatch_uid="thawloop.core.roles")
        metrics.register()
