"""Annotation efforts: what is mapped, where, in which imagery."""

from django.conf import settings
from django.contrib.gis.db import models
from django.core.validators import RegexValidator
from django.db.models import Q

from thawloop.catalog.models import NAME, Modality, Region, TileGrid


class LandformClass(models.Model):
    """What is mapped, e.g. `RTS`."""

    name = models.CharField(max_length=50, unique=True, validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")])
    title = models.CharField(max_length=100, blank=True)
    color = models.CharField(max_length=7, default="#e6194b", validators=[RegexValidator(r"^#[0-9a-fA-F]{6}$")])
    description = models.TextField(blank=True)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "landform classes"

    def __str__(self) -> str:
        return self.name


class Campaign(models.Model):
    """An annotation effort: classes, grid, period, modalities, Label Studio project, acquisition and model settings."""

    class State(models.TextChoices):
        ACTIVE = "active"
        PAUSED = "paused"
        CLOSED = "closed"

    name = models.CharField(max_length=50, unique=True, validators=[NAME])
    title = models.CharField(max_length=150)
    state = models.CharField(max_length=10, choices=State, default=State.ACTIVE)
    classes = models.ManyToManyField(LandformClass, related_name="campaigns")
    grid = models.ForeignKey(TileGrid, on_delete=models.PROTECT, related_name="campaigns")
    period = models.CharField(max_length=20, validators=[NAME])
    period_start = models.DateField()
    period_end = models.DateField()
    modalities = models.ManyToManyField(Modality, through="CampaignModality", related_name="campaigns")
    regions = models.ManyToManyField(Region, through="CampaignRegion", related_name="campaigns")
    acquisition = models.JSONField(
        default=dict, blank=True, help_text="Acquisition settings: see thawloop.campaigns.settings.AcquisitionSettings."
    )
    detector = models.JSONField(
        default=dict, blank=True, help_text="Model settings: see thawloop.campaigns.settings.DetectorSettings."
    )
    score_threshold = models.FloatField(default=0.3, help_text="Instances below it are not shown to annotators.")
    split_buffer = models.FloatField(
        default=0,
        help_text="Metres that tiles of two splits must lie apart in a release, or the lower one is left out.",
    )
    licence = models.CharField(
        max_length=100, blank=True, help_text="Of the labels, as SPDX names it, e.g. CC-BY-4.0; goes into releases."
    )
    citation = models.TextField(blank=True, help_text="How users of a release should cite it.")
    ls_project_id = models.PositiveIntegerField(null=True, blank=True, unique=True)
    ls_mark = models.CharField(
        max_length=60, blank=True, help_text="What its project's description must hold, or it is another project."
    )
    ls_generation = models.PositiveIntegerField(
        default=0, help_text="How many projects it had before this one: numbers in Label Studio belong to one of them."
    )
    ls_stopped = models.TextField(
        blank=True, help_text="Why the exchange with Label Studio stopped and what a lead can do; empty: it goes on."
    )
    ls_removals = models.PositiveIntegerField(
        null=True, blank=True, help_text="How many removals wait for a lead to accept them."
    )
    ls_view_id = models.PositiveIntegerField(null=True, blank=True)
    ls_webhook_id = models.PositiveIntegerField(null=True, blank=True)
    ls_ml_backend_id = models.PositiveIntegerField(null=True, blank=True)
    ls_connections = models.CharField(
        max_length=32, blank=True, help_text="Digest of the addresses and secrets that its project was last told."
    )
    ls_shown = models.CharField(
        max_length=100, blank=True, help_text="Name of the predictions that Label Studio shows: see Preannotation."
    )
    ls_synced_until = models.DateTimeField(
        null=True, blank=True, help_text="Label Studio's changes up to here are known."
    )
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=["active", "paused", "closed"]), name="campaign_state_known"),
            models.CheckConstraint(
                condition=Q(score_threshold__gte=0, score_threshold__lte=1), name="campaign_score_threshold_is_fraction"
            ),
            models.CheckConstraint(condition=Q(split_buffer__gte=0), name="campaign_split_buffer_is_a_distance"),
            models.CheckConstraint(
                condition=Q(period_start__lte=models.F("period_end")), name="campaign_period_ordered"
            ),
        ]
        permissions = [("sync_campaign", "Can exchange tasks and annotations with Label Studio")]

    def __str__(self) -> str:
        return self.title


class CampaignModality(models.Model):
    """A modality of a campaign. The anchor is the one whose features fusion adds to, and the picture people draw on."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="campaign_modalities")
    modality = models.ForeignKey(Modality, on_delete=models.PROTECT)
    position = models.PositiveSmallIntegerField()
    is_anchor = models.BooleanField(default=False)
    is_shown = models.BooleanField(default=True, help_text="Shown to annotators.")
    is_model_input = models.BooleanField(default=True, help_text="Given to the detector.")

    class Meta:
        ordering = ["position"]
        verbose_name_plural = "campaign modalities"
        constraints = [
            models.UniqueConstraint(fields=["campaign", "modality"], name="campaign_modality_once"),
            models.UniqueConstraint(fields=["campaign"], condition=Q(is_anchor=True), name="campaign_one_anchor"),
        ]

    def __str__(self) -> str:
        return f"{self.campaign.name}: {self.modality.name}"


class Split(models.TextChoices):
    """What a region's tiles are for."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class CampaignRegion(models.Model):
    """A region of a campaign and the split that all its tiles belong to."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="campaign_regions")
    region = models.ForeignKey(Region, on_delete=models.PROTECT)
    split = models.CharField(max_length=5, choices=Split, default=Split.TRAIN)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["campaign", "region"], name="campaign_region_once"),
            models.CheckConstraint(condition=Q(split__in=["train", "val", "test"]), name="campaign_region_split_known"),
        ]

    def __str__(self) -> str:
        return f"{self.region} ({self.split})"
