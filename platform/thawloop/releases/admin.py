"""Releases in the admin: to look at, to write their files and to check them."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from thawloop.core.admin import ReadOnlyAdmin
from thawloop.core.errors import Refused
from thawloop.core.jobs import enqueue
from thawloop.releases.models import Release
from thawloop.releases.services import verify


@admin.register(Release)
class ReleaseAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "shown_state", "tiles", "labels", "parent", "created", "created_by")
    list_filter = ("campaign", "state")
    list_select_related = ("campaign", "parent__campaign", "created_by")
    list_defer = ("definition",)
    search_fields = ("campaign__name", "version", "notes", "manifest_checksum")
    date_hierarchy = "created"
    actions = ("write_files", "check_files")

    @display(description="state", ordering="state", label={"frozen": "warning", "ready": "success"})
    def shown_state(self, release: Release) -> str:
        return release.state

    @display(description="tiles")
    def tiles(self, release: Release) -> str:
        return _per_split(release.counts.get("tiles", {}))

    @display(description="labels")
    def labels(self, release: Release) -> str:
        return _per_split(release.counts.get("labels", {}))

    @admin.action(description="Write the files of the selected releases", permissions=["change"])
    def write_files(self, request: HttpRequest, queryset: QuerySet[Release]) -> None:
        for release in queryset:
            key = f"materialise:{release.pk}"
            enqueue("thawloop.releases.jobs.materialise", key=key, args={"release": release.pk})
        self.message_user(request, "A worker writes the files: see Jobs for progress.")

    @admin.action(description="Check the files of the selected releases", permissions=["view"])
    def check_files(self, request: HttpRequest, queryset: QuerySet[Release]) -> None:
        for release in queryset:
            try:
                problems = verify(release)
            except Refused as error:
                problems = [str(error)]
            text = " ".join(problems[:5]) if problems else "every file is as it was made."
            self.message_user(request, f"{release}: {text}", messages.ERROR if problems else messages.SUCCESS)


def _per_split(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {number}" for split, number in counts.items())
