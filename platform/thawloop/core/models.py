"""What every room shares: durable jobs and the audit trail."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q

QUEUES = ("default", "raster", "gpu")


class Job(models.Model):
    """A durable unit of background work. This row is the truth; RQ only carries its id."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    class Queue(models.TextChoices):
        DEFAULT = "default"
        RASTER = "raster"
        GPU = "gpu"

    ACTIVE = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    function = models.CharField(max_length=200, help_text="Dotted path of the function that does the work.")
    queue = models.CharField(max_length=10, choices=Queue, default=Queue.DEFAULT)
    key = models.CharField(max_length=200, help_text="At most one active job per key, e.g. `predict:campaign:3`.")
    args = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    attempt = models.PositiveIntegerField(default=1)
    max_attempts = models.PositiveIntegerField(default=3)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    cancel_requested = models.BooleanField(default=False)
    progress = models.FloatField(default=0, help_text="0 to 1.")
    progress_message = models.CharField(max_length=300, blank=True)
    result = models.JSONField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="What went wrong, in a sentence; the traceback is in the log.")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    request_id = models.CharField(max_length=64, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)
    dispatches = models.PositiveIntegerField(default=0)
    dispatched = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True, help_text="After a failure: when to try again.")

    class Meta:
        ordering = ["-created"]
        indexes = [
            models.Index(fields=["state", "lease_until"]),
            models.Index(fields=["-created"]),
            models.Index(fields=["key", "-created"]),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["key"], condition=Q(state__in=["queued", "running"]), name="job_one_active_per_key"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "succeeded", "failed", "cancelled"]), name="job_state_known"
            ),
            models.CheckConstraint(condition=Q(queue__in=QUEUES), name="job_queue_known"),
            models.CheckConstraint(condition=Q(progress__gte=0) & Q(progress__lte=1), name="job_progress_is_fraction"),
            models.CheckConstraint(condition=Q(attempt__lte=F("max_attempts")), name="job_attempts_bounded"),
            models.CheckConstraint(
                condition=Q(state="running", lease_token__isnull=False, lease_until__isnull=False)
                | (~Q(state="running") & Q(lease_token__isnull=True)),
                name="job_lease_iff_running",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.function.rsplit('.', 1)[-1]} {str(self.id)[:8]} ({self.state})"

    @property
    def title(self) -> str:
        """What it does, for people: `Process events` for `labeling.labelstudio.jobs.process_events`."""
        return self.function.rsplit(".", 1)[-1].replace("_", " ").capitalize()

    @property
    def is_active(self) -> bool:
        """Whether the work is still to be done or being done."""
        return self.state in self.ACTIVE


class AuditEntry(models.Model):
    """One change of state: who did what to what, when, why, and in which request. Append-only (database trigger)."""

    id = models.BigAutoField(primary_key=True)
    created = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT)
    actor_name = models.CharField(max_length=150, help_text="User name, or the process that acted, e.g. `reconciler`.")
    action = models.CharField(max_length=80, help_text="Room and verb, e.g. `training.promote`.")
    object_type = models.CharField(max_length=80, help_text="Model label, e.g. `training.modelversion`.")
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200, blank=True)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.TextField(blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.DO_NOTHING, db_constraint=False)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["object_type", "object_id", "-id"]), models.Index(fields=["request_id"])]

    def __str__(self) -> str:
        return f"{self.created:%Y-%m-%d %H:%M} {self.actor_name} {self.action} {self.object_name or self.object_id}"


class ApiToken(models.Model):
    """A key to the API for one account: until when, and for what. Only its digest is kept."""

    class Scope(models.TextChoices):
        READ = "read", "read only"
        WRITE = "write", "all that its account may do"

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, blank=True, help_text="What it is for.")
    digest = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256 of the key.")
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.WRITE)
    created = models.DateTimeField(auto_now_add=True)
    expires = models.DateTimeField()
    last_used = models.DateTimeField(null=True, blank=True, help_text="To the hour.")

    class Meta:
        ordering = ["-id"]
        verbose_name = "API token"
        constraints = [models.CheckConstraint(condition=Q(scope__in=["read", "write"]), name="token_scope_known")]

    def __str__(self) -> str:
        return self.name or f"{self.user} {self.created:%Y-%m-%d}"


class LoginFailure(models.Model):
    """How often somebody failed to log in under one name or from one address (kept as digests), and when last."""

    subject = models.CharField(max_length=64, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    last = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["last"])]

    def __str__(self) -> str:
        return f"{self.failures} failures until {self.last:%Y-%m-%d %H:%M}"
