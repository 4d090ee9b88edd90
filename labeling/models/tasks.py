"""Tasks for annotators, and Label Studio's webhooks."""

import uuid

from django.conf import settings
from django.contrib.gis.db import models
from django.db.models import Q

from labeling.models.predictions import Prediction
from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Tile


class AcquisitionBatch(models.Model):
    """The tiles chosen in one go: scores, strategy, model version, seed, and the random control arm."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="batches")
    number = models.PositiveIntegerField()
    strategy = models.CharField(max_length=50)
    parameters = models.JSONField(default=dict)
    seed = models.BigIntegerField()
    model_version = models.ForeignKey(
        "registry.ModelVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="batches"
    )
    candidates = models.PositiveIntegerField(help_text="How many tiles could have been chosen.")
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "acquisition batches"
        constraints = [models.UniqueConstraint(fields=["campaign", "number"], name="batch_number_once")]

    def __str__(self) -> str:
        return f"{self.campaign.name} batch {self.number}"


class AnnotationTask(models.Model):
    """A tile given to annotators in a campaign."""

    class State(models.TextChoices):
        PENDING = "pending", "not yet in Label Studio"
        OPEN = "open", "waits for an annotator"
        SUBMITTED = "submitted"
        RETURNED = "returned", "submitted, but not understood in full"
        SKIPPED = "skipped"
        WITHDRAWN = "withdrawn", "gone from Label Studio"

    class Arm(models.TextChoices):
        ACQUIRED = "acquired", "chosen by the strategy"
        RANDOM = "random", "random control arm"
        MANUAL = "manual", "asked for by a person"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="tasks")
    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="tasks")
    batch = models.ForeignKey(AcquisitionBatch, null=True, blank=True, on_delete=models.PROTECT, related_name="tasks")
    arm = models.CharField(max_length=10, choices=Arm, default=Arm.MANUAL)
    rank = models.PositiveIntegerField(default=0, help_text="Order within the batch; 0 first.")
    score = models.FloatField(null=True, blank=True, help_text="Acquisition score.")
    score_parts = models.JSONField(default=dict, blank=True)
    prediction = models.ForeignKey(
        Prediction,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="tasks",
        help_text="The pre-annotation given.",
    )
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    ls_task_id = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Its number in the campaign's present project."
    )
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["batch_id", "rank"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "tile"], name="task_once_per_tile"),
            models.UniqueConstraint(fields=["campaign", "ls_task_id"], name="task_ls_id_once"),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "open", "submitted", "returned", "skipped", "withdrawn"]),
                name="task_state_known",
            ),
            models.CheckConstraint(condition=Q(arm__in=["acquired", "random", "manual"]), name="task_arm_known"),
            models.CheckConstraint(
                # Not those of a project that was deleted there: what was done in it stays done.
                condition=Q(state__in=["pending", "submitted", "withdrawn"]) | Q(ls_task_id__isnull=False),
                name="task_in_label_studio_while_it_waits",
            ),
        ]
        indexes = [models.Index(fields=["campaign", "state"])]

    def __str__(self) -> str:
        return f"{self.tile} ({self.state})"


class Preannotation(models.Model):
    """A prediction given to a task in Label Studio, and the name it has there: what an annotator started from.

    Label Studio shows the predictions of one version per project. So those of all waiting tasks get one name, whichever
    model they are of, and another name when any of them is replaced.
    """

    task = models.ForeignKey(AnnotationTask, on_delete=models.CASCADE, related_name="preannotations")
    name = models.CharField(max_length=100, help_text="The prediction's model version in Label Studio.")
    prediction = models.ForeignKey(
        Prediction,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="preannotations",
        help_text="None: an empty one.",
    )
    removed = models.BooleanField(default=False, help_text="It was replaced, and is no longer in Label Studio.")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "name"], name="preannotation_name_once_per_task")]
        indexes = [models.Index(fields=["task"], condition=Q(removed=False), name="preannotation_standing")]

    def __str__(self) -> str:
        return f"{self.name} of {self.task}"


class WebhookEvent(models.Model):
    """A hint of Label Studio's that something changed: only numbers are kept of it, and Label Studio is asked."""

    campaign = models.ForeignKey(Campaign, null=True, blank=True, on_delete=models.SET_NULL)
    action = models.CharField(max_length=50)
    payload = models.JSONField()
    received = models.DateTimeField(auto_now_add=True)
    processed = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["id"], condition=Q(processed__isnull=True), name="webhook_unprocessed")]

    def __str__(self) -> str:
        return f"{self.action} {self.received:%Y-%m-%d %H:%M:%S}"
