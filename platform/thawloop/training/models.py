"""From labels to better models: policy, retraining, registry, promotion."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from thawloop.campaigns.models import Campaign
from thawloop.catalog.models import Modality
from thawloop.core.models import Job
from thawloop.registry.models import ModelVersion
from thawloop.releases.models import Release


class RetrainPolicy(models.Model):
    """When a campaign retrains by itself."""

    campaign = models.OneToOneField(Campaign, on_delete=models.CASCADE, related_name="retrain_policy")
    enabled = models.BooleanField(default=True)
    min_new_tiles = models.PositiveIntegerField(default=50, help_text="Tiles annotated since the last release.")
    min_new_labels = models.PositiveIntegerField(default=0, help_text="Labels changed since the last release.")
    cooldown_minutes = models.PositiveIntegerField(default=0, help_text="Minutes between two retrainings.")
    gate_min_gain = models.FloatField(default=0.0, help_text="AP50 the challenger must add on the same test set.")

    class Meta:
        verbose_name_plural = "retrain policies"

    def __str__(self) -> str:
        return f"retrain policy of {self.campaign.name}"


class Retraining(models.Model):
    """One turn from labels to a (perhaps promoted) model: release, trainings, evaluation, gate, new predictions."""

    class State(models.TextChoices):
        RELEASING = "releasing"
        PRETRAINING = "pretraining"
        FINETUNING = "finetuning"
        EVALUATING = "evaluating"
        PREDICTING = "predicting"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    FINISHED = (State.DONE, State.FAILED, State.CANCELLED)

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="retrainings")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=State, default=State.RELEASING)
    reason = models.TextField(help_text="Why it was started: the policy's explanation or a person's words.")
    release = models.ForeignKey(Release, null=True, blank=True, on_delete=models.PROTECT, related_name="retrainings")
    seed = models.BigIntegerField(default=0)
    promoted = models.BooleanField(null=True, help_text="The gate's verdict; none before it was asked.")
    verdict = models.TextField(blank=True)
    error = models.TextField(blank=True)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "number"], name="retraining_number_once"),
            models.UniqueConstraint(
                fields=["campaign"],
                condition=~Q(state__in=["done", "failed", "cancelled"]),
                name="retraining_one_active_per_campaign",
            ),
        ]
        permissions = [("start_retraining", "Can start and cancel retraining")]

    def __str__(self) -> str:
        return f"{self.campaign.name} retraining {self.number} ({self.state})"


class TrainingRun(models.Model):
    """One execution of pretraining or fine-tuning."""

    class Stage(models.TextChoices):
        PRETRAIN = "pretrain", "unimodal pretraining"
        FINETUNE = "finetune", "multimodal fine-tuning"

    retraining = models.ForeignKey(Retraining, on_delete=models.PROTECT, related_name="runs")
    stage = models.CharField(max_length=10, choices=Stage)
    modality = models.ForeignKey(
        Modality, null=True, blank=True, on_delete=models.PROTECT, help_text="For unimodal pretraining."
    )
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL)
    config = models.JSONField(help_text="The detector's configuration.")
    # and `anchor_scores`, where the anchor was chosen by them (services.settle_anchor)
    init = models.JSONField(
        default=dict,
        blank=True,
        help_text="What it starts from: `checkpoint` (artifact name) or `unimodal` (modality to artifact name).",
    )
    seed = models.BigIntegerField()
    path = models.CharField(
        max_length=500, blank=True, help_text="Artifact name of the resulting checkpoint; empty until finished."
    )
    metrics = models.JSONField(default=dict)
    seconds = models.FloatField(null=True, blank=True, help_text="Training time on the device.")
    peak_memory_mb = models.FloatField(null=True, blank=True)
    device = models.CharField(max_length=50, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["retraining", "stage", "modality"], nulls_distinct=False, name="run_once_per_stage_and_modality"
            ),
            models.CheckConstraint(
                condition=Q(stage="pretrain", modality__isnull=False) | Q(stage="finetune", modality__isnull=True),
                name="run_modality_iff_pretraining",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_stage_display()} {self.modality or ''} of {self.retraining}"


class Evaluation(models.Model):
    """How a model version did on the test (or val) tiles of a release."""

    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="evaluations")
    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="evaluations")
    split = models.CharField(max_length=5, default="test")
    ap = models.FloatField(null=True, help_text="Mask AP@[.5:.95]; none when the split holds no instance.")
    ap50 = models.FloatField(null=True)
    ap30 = models.FloatField(null=True)
    metrics = models.JSONField(default=dict)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["model_version", "release", "split"], name="evaluated_once")]

    def __str__(self) -> str:
        return f"{self.model_version} on {self.release} {self.split}"
