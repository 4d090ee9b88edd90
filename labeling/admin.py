"""The labeling room in the admin: campaigns can be edited, history can be viewed."""

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.gis.admin import GISModelAdmin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from labeling.labelstudio.webhooks import enqueue_processing
from labeling.models import (
    AcquisitionBatch,
    Annotation,
    AnnotationTask,
    Label,
    LabelImport,
    LabelRevision,
    PredictedInstance,
    Prediction,
    WebhookEvent,
)
from labeling.services import review_label
from labeling.services.imports import withdraw_import
from thawloop.campaigns.models import Campaign, CampaignModality, CampaignRegion, LandformClass
from thawloop.campaigns.services import EDITABLE, change_campaign
from thawloop.core.admin import HistoryAdmin, LightAdmin
from thawloop.core.bulk import count_of
from thawloop.core.errors import Refused
from thawloop.core.jobs import enqueue
from thawloop.core.services import audit


class ReadOnlyInline(TabularInline):
    """Rows that belong to another, for viewing only."""

    extra = 0
    can_delete = False

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return tuple(self.fields)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(LandformClass)
class LandformClassAdmin(ModelAdmin):
    list_display = ("name", "title", "swatch")
    search_fields = ("name", "title")

    @display(description="colour")
    def swatch(self, landform: LandformClass) -> str:
        return format_html('<span style="color:{}">&#9632;</span> {}', landform.color, landform.color)

    def save_model(self, request: HttpRequest, obj: LandformClass, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        audit("labeling.change_class" if change else "labeling.add_class", obj, after=form.cleaned_data)


class CampaignModalityInline(ReadOnlyInline):
    model = CampaignModality
    fields = ("position", "modality", "is_anchor", "is_shown", "is_model_input")


class CampaignRegionInline(ReadOnlyInline):
    model = CampaignRegion
    fields = ("region", "split")


@admin.register(Campaign)
class CampaignAdmin(LightAdmin):
    list_display = ("name", "title", "state", "period", "shown_tasks", "ls_project_id", "ls_synced_until")
    list_filter = ("state",)
    search_fields = ("name", "title")
    actions = ("sync",)
    inlines = (CampaignModalityInline, CampaignRegionInline)
    fieldsets = (
        (None, {"fields": ("name", "title", "state", "classes", "grid", "period", "period_start", "period_end")}),
        ("Settings", {"fields": ("score_threshold", "acquisition", "detector")}),
        ("Releases", {"fields": ("split_buffer", "licence", "citation")}),
        ("Label Studio", {"fields": ("ls_project_id", "ls_synced_until", "ls_stopped", "ls_removals")}),
        ("History", {"fields": ("created", "created_by")}),
    )
    _editable = EDITABLE

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        done = count_of(AnnotationTask, "campaign", Q(state=AnnotationTask.State.SUBMITTED))
        campaigns = super().get_queryset(request)
        return campaigns.annotate(task_count=count_of(AnnotationTask, "campaign"), done_count=done)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        names = [name for _, options in self.fieldsets for name in options["fields"]]
        return [name for name in names if name not in self._editable]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # made from a campaign file

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Campaign, form: Any, change: bool) -> None:
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        try:
            change_campaign(obj, reason="edited in the admin", **changes)
        except Refused as refusal:
            self.message_user(request, str(refusal), messages.ERROR)

    @display(description="tasks done")
    def shown_tasks(self, campaign: Any) -> str:
        return f"{campaign.done_count} of {campaign.task_count}"

    @admin.action(description="Sync with Label Studio now", permissions=["sync"])
    def sync(self, request: HttpRequest, queryset: QuerySet[Campaign]) -> None:
        for campaign in queryset:
            enqueue("labeling.labelstudio.jobs.synchronise", key=f"sync:{campaign.pk}", args={"campaign": campaign.pk})
        self.message_user(request, "Asked for; see the jobs.", messages.SUCCESS)

    def has_sync_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("campaigns.sync_campaign")


@admin.register(AcquisitionBatch)
class AcquisitionBatchAdmin(HistoryAdmin):
    list_display = ("number", "campaign", "strategy", "candidates", "model_version", "seed", "created")
    list_filter = ("campaign", "strategy")
    list_select_related = ("campaign", "model_version")


class AnnotationInline(ReadOnlyInline):
    model = Annotation
    fields = ("ls_annotation_id", "kind", "ls_updated_at", "annotator_name", "lead_time", "correction_iou", "problems")
    show_change_link = True


@admin.register(AnnotationTask)
class AnnotationTaskAdmin(HistoryAdmin):
    list_display = ("tile", "campaign", "shown_state", "batch", "arm", "rank", "score", "updated")
    list_filter = ("campaign", "state", "arm")
    list_select_related = ("tile", "campaign", "batch__campaign")
    search_fields = ("tile__key", "id")
    inlines = (AnnotationInline,)

    @display(
        description="state",
        ordering="state",
        label={
            "open": "info",
            "submitted": "success",
            "returned": "danger",
            "skipped": "warning",
            "withdrawn": "danger",
        },
    )
    def shown_state(self, task: AnnotationTask) -> str:
        return task.state


class LabelRevisionInline(ReadOnlyInline):
    model = LabelRevision
    fields = ("number", "state", "landform_class", "author_name", "reason", "created")
    ordering = ("-number",)
    show_change_link = True


@admin.register(Annotation)
class AnnotationAdmin(HistoryAdmin):
    list_display = ("task", "ls_annotation_id", "kind", "annotator_name", "lead_time", "correction_iou", "has_problems")
    list_filter = ("task__campaign", "kind", "annotator_name")
    list_select_related = ("task__tile",)
    list_defer = ("result",)
    search_fields = ("task__tile__key", "annotator_name", "ls_annotation_id")
    inlines = (LabelRevisionInline,)

    @display(description="problems", boolean=True)
    def has_problems(self, annotation: Annotation) -> bool:
        return not annotation.problems


@admin.register(Label)
class LabelAdmin(HistoryAdmin):
    list_display = ("id", "campaign", "tile", "shown_class", "shown_state", "origin", "created")
    list_filter = ("campaign", "current__landform_class", "current__state")
    list_select_related = ("campaign", "tile", "current__landform_class")
    search_fields = ("id", "origin", "tile__key")
    inlines = (LabelRevisionInline,)
    actions = ("retire", "bring_back")

    @admin.action(description="Retire the selected labels", permissions=["review"])
    def retire(self, request: HttpRequest, queryset: QuerySet[Label]) -> None:
        self._review(request, queryset, LabelRevision.State.RETIRED, "retired")

    @admin.action(description="Bring the selected labels back", permissions=["review"])
    def bring_back(self, request: HttpRequest, queryset: QuerySet[Label]) -> None:
        self._review(request, queryset, LabelRevision.State.PRESENT, "brought back")

    def has_review_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("labeling.change_label")

    def _review(self, request: HttpRequest, queryset: QuerySet[Label], state: str, done: str) -> None:
        service = partial(review_label, state=state, reason=f"{done} in the admin")
        self.apply_to_each(request, queryset, service, done)

    @display(description="class")
    def shown_class(self, label: Label) -> str:
        return str(label.current.landform_class) if label.current else "-"

    @display(description="state", label={"present": "success", "retired": "warning"})
    def shown_state(self, label: Label) -> str:
        return label.current.state if label.current else "-"


@admin.register(LabelRevision)
class LabelRevisionAdmin(HistoryAdmin, GISModelAdmin):
    list_display = ("label", "number", "state", "landform_class", "author_name", "reason", "created")
    list_filter = ("label__campaign", "state", "landform_class")
    list_select_related = ("label", "landform_class")
    list_defer = ("properties",)
    search_fields = ("label__id", "label__origin", "author_name")


@admin.register(LabelImport)
class LabelImportAdmin(HistoryAdmin, GISModelAdmin):
    list_display = ("id", "file_name", "campaign", "counts", "created_by", "created", "withdrawn")
    list_filter = ("campaign", ("withdrawn", admin.EmptyFieldListFilter))
    list_select_related = ("campaign", "created_by")
    search_fields = ("file_name", "checksum")
    exclude = ("confirmed",)
    actions = ("withdraw",)

    @admin.action(description="Withdraw the selected imports: retire their labels", permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, queryset: QuerySet[LabelImport]) -> None:
        for found in queryset:
            try:
                row = withdraw_import(found, reason="withdrawn in the admin")
            except Refused as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{row}: {row.counts['retired']:,} labels retired.", messages.SUCCESS)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        """Whether the user may take imports back."""
        return request.user.has_perm("labeling.withdraw_labelimport")


class PredictedInstanceInline(ReadOnlyInline):
    model = PredictedInstance
    fields = ("region_id", "landform_class", "score", "mask_entropy", "class_entropy")


@admin.register(Prediction)
class PredictionAdmin(HistoryAdmin):
    list_display = ("tile", "model_version", "uncertainty", "seconds", "created")
    list_filter = ("model_version",)
    list_select_related = ("tile", "model_version")
    search_fields = ("tile__key",)
    inlines = (PredictedInstanceInline,)
    exclude = ("embedding",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        return super().get_queryset(request).defer("embedding")  # on a row's own page, too


@admin.register(WebhookEvent)
class WebhookEventAdmin(HistoryAdmin):
    list_display = ("received", "action", "campaign", "processed", "error")
    list_filter = ("campaign", "action", ("processed", admin.EmptyFieldListFilter))
    list_select_related = ("campaign",)
    search_fields = ("error",)
    actions = ("process_again",)

    @admin.action(description="Process the selected webhooks again", permissions=["sync"])
    def process_again(self, request: HttpRequest, queryset: QuerySet[WebhookEvent]) -> None:
        waiting = queryset.filter(campaign__isnull=False)
        for campaign in Campaign.objects.filter(pk__in=waiting.values("campaign").distinct()):
            waiting.filter(campaign=campaign).update(processed=None, error="")
            enqueue_processing(campaign)
        self.message_user(request, "They will be processed again.", messages.SUCCESS)

    def has_sync_permission(self, request: HttpRequest) -> bool:
        """Whether the user may exchange annotations with Label Studio, which processing webhooks does."""
        return request.user.has_perm("campaigns.sync_campaign")
