"""Models and which of them is a campaign's champion."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from thawloop.campaigns.models import Campaign


class ModelVersion(models.Model):
    """A checkpoint in the registry. Immutable but for its evaluations."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="model_versions")
    name = models.CharField(max_length=80, unique=True, help_text="`<campaign>-v<number>`; what Label Studio shows.")
    number = models.PositiveIntegerField()
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="children",
        help_text="What it was warm-started from.",
    )
    release = models.ForeignKey(
        "releases.Release",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="model_versions",
        help_text="What it was trained on.",
    )
    retraining = models.OneToOneField(
        "training.Retraining", null=True, blank=True, on_delete=models.PROTECT, related_name="model_version"
    )
    path = models.CharField(max_length=500, help_text="Artifact name of the checkpoint directory.")
    checksum = models.CharField(max_length=64, help_text="SHA-256 of model.safetensors.")
    card = models.JSONField(default=dict, help_text="model.json: config, classes, modalities, dataset, code version.")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["campaign", "number"], name="model_version_number_once")]
        permissions = [("promote_modelversion", "Can promote and roll back models")]

    def __str__(self) -> str:
        return self.name


class ModelAlias(models.Model):
    """Which version is a campaign's champion or challenger now."""

    class Alias(models.TextChoices):
        CHAMPION = "champion"
        CHALLENGER = "challenger"

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="aliases")
    alias = models.CharField(max_length=10, choices=Alias)
    model_version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")

    class Meta:
        verbose_name_plural = "model aliases"
        constraints = [
            models.UniqueConstraint(fields=["campaign", "alias"], name="alias_once"),
            models.CheckConstraint(condition=Q(alias__in=["champion", "challenger"]), name="alias_known"),
        ]

    def __str__(self) -> str:
        return f"{self.alias}: {self.model_version}"


class Promotion(models.Model):
    """A change of champion, and why. Append-only (database trigger)."""

    class Kind(models.TextChoices):
        GATE = "gate", "passed the gate"
        MANUAL = "manual", "promoted by a person"
        ROLLBACK = "rollback", "rolled back"

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="promotions")
    kind = models.CharField(max_length=10, choices=Kind)
    previous = models.ForeignKey(ModelVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    champion = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="promotions")
    reason = models.TextField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=["gate", "manual", "rollback"]), name="promotion_kind_known")
        ]

    def __str__(self) -> str:
        return f"{self.champion} ({self.kind})"
