"""Releases over HTTP. The router is in `thawloop.dashboard.api_urls`."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from thawloop.campaigns.models import Campaign
from thawloop.core.jobs import enqueue
from thawloop.releases.errors import ExportRefused, ReleaseConflict
from thawloop.releases.exports import EXPORTERS
from thawloop.releases.models import Release
from thawloop.releases.selectors import diff
from thawloop.releases.services import export, freeze_release, verify
from thawloop.releases.services.export import FOLDERS

_ENDINGS = dict.fromkeys(FOLDERS, ".zip") | {"tiles": "-tiles.geojson"}
FORMAT = OpenApiParameter("fmt", str, OpenApiParameter.PATH, enum=sorted(EXPORTERS))
OTHER = OpenApiParameter("with", int, required=True, description="The release to compare with, usually an older one.")


class ReleaseSerializer(serializers.ModelSerializer[Release]):
    """A release without its members."""

    campaign = serializers.SlugRelatedField("name", read_only=True)
    created_by = serializers.SlugRelatedField("username", read_only=True)

    class Meta:
        model = Release
        fields = [
            "id",
            "campaign",
            "version",
            "state",
            "parent",
            "definition",
            "counts",
            "manifest_checksum",
            "notes",
            "created",
            "created_by",
        ]
        read_only_fields = fields


class FreezeSerializer(serializers.Serializer[Any]):
    """What to freeze."""

    campaign = serializers.SlugRelatedField("name", queryset=Campaign.objects.all())
    notes = serializers.CharField(required=False, allow_blank=True, max_length=10_000, default="")


class JobReferenceSerializer(serializers.Serializer[Any]):
    """The job that does what was asked."""

    job = serializers.UUIDField()


class ProblemsSerializer(serializers.Serializer[Any]):
    """What is wrong with a release's files: nothing if the list is empty."""

    problems = serializers.ListField(child=serializers.CharField())


class ReleaseViewSet(mixins.CreateModelMixin, viewsets.ReadOnlyModelViewSet[Release]):
    """Frozen, versioned datasets."""

    queryset = Release.objects.select_related("campaign", "created_by")
    serializer_class = ReleaseSerializer
    filterset_fields = ["campaign__name", "version", "state"]

    def get_throttles(self) -> list[Any]:
        """What reads every file or writes new ones counts as expensive."""
        if self.action in ("create", "materialise", "verify", "download"):
            self.throttle_scope = "expensive"
        return super().get_throttles()

    @extend_schema(request=FreezeSerializer, responses={201: ReleaseSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Freeze what is labelled now; 409 if nothing changed since the last release."""
        wanted = FreezeSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        release = freeze_release(**wanted.validated_data, allow_unchanged=False)
        return Response(self.get_serializer(release).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={202: JobReferenceSerializer})
    @action(detail=True, methods=["post"])
    def materialise(self, request: Request, pk: str) -> Response:
        """Write the release's files, in the background."""
        release = self.get_object()
        job = enqueue(
            "thawloop.releases.jobs.materialise",
            key=f"materialise:{release.pk}",
            args={"release": release.pk},
        )
        return Response({"job": job.pk}, status=status.HTTP_202_ACCEPTED)

    @extend_schema(responses=ProblemsSerializer)
    @action(detail=True)
    def verify(self, request: Request, pk: str) -> Response:
        """Compare every file with the manifest."""
        return Response({"problems": verify(self.get_object())})

    @extend_schema(parameters=[OTHER], responses=OpenApiTypes.OBJECT)
    @action(detail=True)
    def diff(self, request: Request, pk: str) -> Response:
        """What this release added, removed and changed compared with another."""
        number = serializers.IntegerField().run_validation(request.query_params.get("with", ""))
        other = get_object_or_404(self.get_queryset(), pk=number)
        return Response(diff(other, self.get_object()).to_json())

    @extend_schema(parameters=[FORMAT], responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    @action(detail=True, url_path="export/(?P<fmt>[a-z]+)")
    def download(self, request: Request, pk: str, fmt: str) -> FileResponse:
        """The release as a file: `gpkg`, `geojson` (labels), `tiles`, or a zip archive of `coco` or `dataset`."""
        release = self.get_object()
        if fmt not in EXPORTERS:
            raise ExportRefused(f"Format `{fmt}` is unknown: use {', '.join(sorted(EXPORTERS))}.")
        if fmt in FOLDERS and release.state != Release.State.READY:
            raise ReleaseConflict(f"The files of {release} are not written yet: ask for `materialise` first.")
        folder = Path(tempfile.mkdtemp(prefix="thawloop-export-"))
        try:
            name = f"{release.campaign.name}-{release.version}{_ENDINGS.get(fmt, f'.{fmt}')}"
            file = export(release, fmt, folder / name).open("rb")
            # A type said here: what Django guesses by the name depends on the machine's list of types.
            response = FileResponse(file, as_attachment=True, filename=name, content_type="application/octet-stream")
        finally:
            # The open file outlives its name.
            shutil.rmtree(folder)
        return response
