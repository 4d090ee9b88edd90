"""The training room in the admin: to look at, to set policies, and to promote."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from thawloop.core.admin import LightAdmin, ReadOnlyAdmin
from thawloop.core.errors import Refused
from thawloop.registry.models import ModelAlias, ModelVersion, Promotion
from thawloop.registry.services import promote
from thawloop.training.models import Evaluation, Retraining, RetrainPolicy, TrainingRun
from thawloop.training.selectors import CampaignState, explain_policy
from thawloop.training.services import cancel_retraining, retry_retraining, set_policy
from thawloop.training.services.policies import FIELDS

_STATES = {
    "done": "success",
    "failed": "danger",
    "cancelled": "warning",
    "releasing": "info",
    "pretraining": "info",
    "finetuning": "info",
    "evaluating": "info",
    "predicting": "info",
}


@admin.register(RetrainPolicy)
class RetrainPolicyAdmin(LightAdmin):
    list_display = (
        "campaign",
        "enabled",
        "min_new_tiles",
        "min_new_labels",
        "cooldown_minutes",
        "gate_min_gain",
        "now",
    )
    list_select_related = ("campaign",)
    readonly_fields = ("now",)

    @display(description="retrain now?")
    def now(self, policy: RetrainPolicy) -> str:
        """The explanation, in words."""
        return " ".join(explain_policy(CampaignState(policy.campaign)).reasons) if policy.pk else "-"

    def get_readonly_fields(self, request: HttpRequest, obj: RetrainPolicy | None = None) -> tuple[str, ...]:
        """A policy stays with its campaign."""
        return ("now", "campaign") if obj else ("now",)

    def save_model(self, request: HttpRequest, obj: RetrainPolicy, form: Any, change: bool) -> None:
        """Through the service, so that it is audited."""
        saved = set_policy(obj.campaign, **{name: getattr(obj, name) for name in FIELDS})
        obj.pk = saved.pk


class TrainingRunInline(TabularInline):
    model = TrainingRun
    fields = ("stage", "modality", "device", "seconds", "peak_memory_mb", "path", "finished")
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Trainings are planned by services."""
        return False


@admin.register(Retraining)
class RetrainingAdmin(ReadOnlyAdmin):
    list_display = ("number", "campaign", "shown_state", "release", "promoted", "verdict", "requested_by", "created")
    list_filter = ("state", "promoted", "campaign")
    list_select_related = ("campaign", "release__campaign", "requested_by")
    search_fields = ("reason", "verdict", "error")
    inlines = (TrainingRunInline,)
    actions = ("cancel", "retry")

    @display(description="state", ordering="state", label=_STATES)
    def shown_state(self, retraining: Retraining) -> str:
        """The state, coloured."""
        return str(retraining.state)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Who may start one may end one."""
        return request.user.has_perm("training.start_retraining")

    @admin.action(description="Cancel the selected retrainings", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Retraining]) -> None:
        """End them and stop their jobs."""
        _each(self, request, queryset, cancel_retraining)

    @admin.action(description="Go on with the selected failed retrainings", permissions=["cancel"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Retraining]) -> None:
        """Where they stopped."""
        _each(self, request, queryset, retry_retraining)


class EvaluationInline(TabularInline):
    model = Evaluation
    fields = ("release", "split", "ap", "ap50", "ap30", "created")
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Evaluations are measured."""
        return False


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ("name", "campaign", "shown_aliases", "release", "parent", "created")
    list_filter = ("campaign", "aliases__alias")
    list_select_related = ("campaign", "release__campaign", "parent")
    list_defer = ("card",)
    search_fields = ("name", "checksum")
    inlines = (EvaluationInline,)
    actions = ("make_champion",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        """With aliases, in one more query for the whole page."""
        return super().get_queryset(request).prefetch_related("aliases")

    @display(description="alias", label={"champion": "success", "challenger": "info"})
    def shown_aliases(self, version: ModelVersion) -> str:
        """Champion, challenger or neither."""
        return ", ".join(alias.alias for alias in version.aliases.all())

    def has_promote_permission(self, request: HttpRequest) -> bool:
        """Leads choose champions."""
        return request.user.has_perm("registry.promote_modelversion")

    @admin.action(description="Make the selected model version champion", permissions=["promote"])
    def make_champion(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        """One of them."""
        if queryset.count() != 1:
            self.message_user(request, "Select one model version: a campaign has one champion.", messages.ERROR)
            return
        _each(self, request, queryset, lambda version: promote(version, reason="promoted in the admin"))


@admin.register(TrainingRun)
class TrainingRunAdmin(ReadOnlyAdmin):
    list_display = ("retraining", "stage", "modality", "device", "seconds", "peak_memory_mb", "finished")
    list_defer = ("config", "metrics")
    list_filter = ("stage", "retraining__campaign")
    list_select_related = ("retraining__campaign", "modality")


@admin.register(Evaluation)
class EvaluationAdmin(ReadOnlyAdmin):
    list_display = ("model_version", "release", "split", "ap", "ap50", "ap30", "created")
    list_filter = ("split", "model_version__campaign")
    list_select_related = ("model_version", "release__campaign")


@admin.register(ModelAlias)
class ModelAliasAdmin(ReadOnlyAdmin):
    list_display = ("campaign", "alias", "model_version")
    list_select_related = ("campaign", "model_version")


@admin.register(Promotion)
class PromotionAdmin(ReadOnlyAdmin):
    list_display = ("champion", "campaign", "kind", "previous", "reason", "actor", "created")
    list_filter = ("kind", "campaign")
    list_select_related = ("champion", "campaign", "previous", "actor")


def _each(admin_: ModelAdmin, request: HttpRequest, queryset: QuerySet[Any], service: Any) -> None:
    for row in queryset:
        try:
            service(row)
        except Refused as refusal:
            admin_.message_user(request, str(refusal), messages.ERROR)
        else:
            admin_.message_user(request, f"{row}: done.", messages.SUCCESS)
