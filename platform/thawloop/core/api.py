"""Jobs, the audit trail and tokens over HTTP. The router is in `thawloop.dashboard.api_urls`."""

from typing import Any

from django.contrib.auth import authenticate
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import SAFE_METHODS, AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from thawloop.core.errors import Refused
from thawloop.core.jobs import cancel_job, retry_job
from thawloop.core.models import ApiToken, AuditEntry, Job
from thawloop.core.pagination import NewestFirst
from thawloop.core.permissions import ModelPermissions
from thawloop.core.services import make_token, withdraw_token
from thawloop.core.services.tokens import LONGEST_DAYS


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job as people see it, without the workers' lease."""

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
    """Cancelling and retrying change a job; none can be created here."""

    perms_map = {**ModelPermissions.perms_map, "POST": ["%(app_label)s.change_%(model_name)s"]}


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


class TokenRequestSerializer(serializers.Serializer[Any]):
    """Who wants a token, for what and for how long."""

    username = serializers.CharField(write_only=True, max_length=150)
    password = serializers.CharField(write_only=True, max_length=1000, trim_whitespace=False)
    scope = serializers.ChoiceField(choices=ApiToken.Scope.choices, default=ApiToken.Scope.WRITE)
    days = serializers.IntegerField(min_value=1, max_value=LONGEST_DAYS, required=False)
    name = serializers.CharField(max_length=100, required=False, allow_blank=True, help_text="What it is for.")


class TokenSerializer(serializers.Serializer[Any]):
    """A token; its key is shown only here."""

    token = serializers.CharField()
    scope = serializers.ChoiceField(choices=ApiToken.Scope.choices)
    expires = serializers.DateTimeField()


class TokenView(APIView):
    """Tokens for programs: `Authorization: Token KEY`."""

    reading_methods = (*SAFE_METHODS, "DELETE")  # whoever has a leaked token can end it

    def get_permissions(self) -> list[Any]:
        """Whoever has a password may ask; whoever has a token may end it."""
        return [IsAuthenticated()] if self.request and self.request.method == "DELETE" else [AllowAny()]

    @extend_schema(request=TokenRequestSerializer, responses={200: TokenSerializer}, auth=[])
    def post(self, request: Request) -> Response:
        """Make a token from name and password; 429 after failed attempts."""
        asked = TokenRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        wanted = dict(asked.validated_data)
        user = authenticate(request, username=wanted.pop("username"), password=wanted.pop("password"))
        if user is None:
            raise ValidationError({"non_field_errors": ["Unable to log in with provided credentials."]})
        token, key = make_token(user, **wanted)
        return Response(TokenSerializer({"token": key, "scope": token.scope, "expires": token.expires}).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Withdraw the token that this request comes with."""
        if not isinstance(request.auth, ApiToken):
            raise Refused("Send the token that is to be withdrawn: Authorization: Token KEY.")
        withdraw_token(request.auth)
        return Response(status=204)
