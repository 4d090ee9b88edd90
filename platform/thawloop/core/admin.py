"""Jobs and the audit trail in the admin: to look at, and to cancel or retry."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.gis.db.models import GeometryField
from django.db.models import BinaryField, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.decorators import display

from thawloop.core.bulk import bulky_fields, without_bulk
from thawloop.core.errors import Refused
from thawloop.core.jobs import cancel_job, retry_job
from thawloop.core.models import ApiToken, AuditEntry, Job
from thawloop.core.services import withdraw_token


class LightRelatedFilter(admin.RelatedFieldListFilter):
    """Offers related rows by their names without fetching their outlines."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        """Key and name of each."""
        other = field.related_model
        ordering = self.field_admin_ordering(field, request, model_admin) or other._meta.ordering
        return [(row.pk, str(row)) for row in other._default_manager.order_by(*ordering).defer(*bulky_fields(other))]


admin.FieldListFilter.register(lambda field: bool(field.remote_field), LightRelatedFilter, take_priority=True)


class LightAdmin(ModelAdmin):
    """Lists fetch what they show: no outlines and bytes, nothing of related rows but what a line is made of."""

    list_defer: tuple[str, ...] = ()  # more fields that a list does without

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """All of a row on its own page."""
        rows = super().get_queryset(request)
        if request.resolver_match and request.resolver_match.kwargs.get("object_id"):
            return rows
        related = self.list_select_related if isinstance(self.list_select_related, list | tuple) else ()
        fields = self.model._meta.concrete_fields
        own = [field.name for field in fields if isinstance(field, BinaryField | GeometryField)]
        return without_bulk(rows, related=related).defer(*own, *self.list_defer)


class ReadOnlyAdmin(LightAdmin):
    """Rows that services write and nobody edits."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the row without a button that would save nothing."""
        no_buttons = {"show_save": False, "show_save_and_continue": False}
        page: HttpResponse = super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), **no_buttons}
        )
        return page

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [field.name for field in self.model._meta.fields]

    def apply_to_each(
        self, request: HttpRequest, queryset: QuerySet[Any], service: Callable[[Any], Any], done: str
    ) -> None:
        """Call a service for each row chosen, and say how many were done and which were refused, and why."""
        count = 0
        for row in queryset:
            try:
                service(row)
                count += 1
            except Refused as refusal:
                self.message_user(request, str(refusal), messages.ERROR)
        if count:
            self.message_user(request, f"{count} {self.model._meta.verbose_name_plural} {done}.", messages.SUCCESS)


class HistoryAdmin(ReadOnlyAdmin):
    """Rows that nobody changes, not even by saving them unchanged."""

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("short_name", "key", "queue", "shown_state", "shown_progress", "attempt", "requested_by", "created")
    list_filter = ("state", "queue", "function")
    list_select_related = ("requested_by",)
    search_fields = ("key", "function", "request_id", "error")
    date_hierarchy = "created"
    actions = ("cancel", "retry")

    @display(description="job", ordering="function")
    def short_name(self, job: Job) -> str:
        return job.function.rsplit(".", 1)[-1]

    @display(
        description="state",
        ordering="state",
        label={"queued": "info", "running": "warning", "succeeded": "success", "failed": "danger"},
    )
    def shown_state(self, job: Job) -> str:
        return "stopping" if job.cancel_requested and job.is_active else job.state

    @display(description="progress", ordering="progress")
    def shown_progress(self, job: Job) -> str:
        text = job.error if job.state == Job.State.FAILED else job.progress_message
        return format_html(
            '<progress max="1" value="{}"></progress> {}', f"{job.progress:.3f}", text[:80] + "…" * (len(text) > 80)
        )

    @admin.action(description="Cancel the selected jobs", permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self.apply_to_each(request, queryset, cancel_job, "cancelled or asked to stop")

    @admin.action(description="Do the work of the selected jobs again", permissions=["change"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self.apply_to_each(request, queryset, retry_job, "queued again")


@admin.register(AuditEntry)
class AuditEntryAdmin(HistoryAdmin):
    list_display = ("created", "actor_name", "action", "object_type", "object_name", "reason")
    list_filter = ("action", "object_type")
    search_fields = ("object_id", "object_name", "actor_name", "request_id", "reason")
    date_hierarchy = "created"


@admin.register(ApiToken)
class ApiTokenAdmin(HistoryAdmin):
    """Tokens are made by `manage.py make_token` or POST /api/token/, where their key is shown once."""

    list_display = ("__str__", "user", "scope", "created", "expires", "last_used")
    list_filter = ("scope",)
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    actions = ("withdraw",)

    @admin.action(description="Withdraw the selected tokens", permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        for token in queryset.select_related("user"):
            withdraw_token(token, reason="in the admin")
        self.message_user(request, "Withdrawn.", messages.SUCCESS)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("core.delete_apitoken")
