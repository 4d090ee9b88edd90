"""Jobs and the audit trail over HTTP. The router is in `thawloop.dashboard.api_urls`."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from thawloop.core.models import AuditEntry, Job
from thawloop.core.pagination import KeysetPagination
from thawloop.core.permissions import ModelPermissions
from thawloop.core.services import cancel_job, retry_job


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job as people see it; the lease is the workers' business."""

    requested_by: serializers.Field[Any, Any, Any, Any] = serializers.SlugRelatedField("username", read_only=True)

    class Meta:
        model = Job
        fields = [
            "id",
            "function",
            "queue",
            "key",
            "args",
            "state",
            "attempt",
            "max_attempts",
            "cancel_requested",
            "progress",
            "progress_message",
            "result",
            "error",
            "requested_by",
            "request_id",
            "created",
            "started",
            "finished",
            "not_before",
        ]
        read_only_fields = fields


class ReasonSerializer(serializers.Serializer[Any]):
    """Why somebody does something."""

    reason = serializers.CharField(required=False, allow_blank=True, max_length=1000, default="")


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """Who did what to what, when and why."""

    class Meta:
        model = AuditEntry
        fields = [
            "id",
            "created",
            "actor_name",
            "action",
            "object_type",
            "object_id",
            "object_name",
            "before",
            "after",
            "reason",
            "request_id",
            "job",
        ]
        read_only_fields = fields


class JobPermissions(ModelPermissions):
    """Cancelling and retrying change a job; nobody makes one from nothing."""

    perms_map = {**ModelPermissions.perms_map, "POST": ["%(app_label)s.change_%(model_name)s"]}


class NewestFirst(KeysetPagination):
    """Jobs have random ids, so their time orders them; the id decides between equal times."""

    ordering = ("-created", "-id")


class JobViewSet(viewsets.ReadOnlyModelViewSet[Job]):
    """Background work: what was asked for, how far it is, what came of it."""

    queryset = Job.objects.select_related("requested_by")
    serializer_class = JobSerializer
    permission_classes = [JobPermissions]
    pagination_class = NewestFirst
    filterset_fields = ["state", "queue", "key", "function", "request_id"]

    @extend_schema(request=ReasonSerializer, responses=JobSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel: a queued job at once, a running one at its next check."""
        return self._answer(cancel_job(self.get_object(), reason=_reason(request)))

    @extend_schema(request=ReasonSerializer, responses={201: JobSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Do the work of a failed or cancelled job again, as a new job."""
        return self._answer(retry_job(self.get_object(), reason=_reason(request)), status=201)

    def _answer(self, job: Job, status: int = 200) -> Response:
        return Response(self.get_serializer(job).data, status=status)


class AuditEntryViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AuditEntry]):
    """Every change of state, newest first."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_fields = ["action", "object_type", "object_id", "actor_name", "request_id", "job"]


def _reason(request: Request) -> str:
    asked = ReasonSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    return str(asked.validated_data["reason"])
