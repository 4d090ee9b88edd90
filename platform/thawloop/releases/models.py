"""Immutable, versioned datasets."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from labeling.models import Annotation, LabelRevision
from thawloop.campaigns.models import Campaign, Split
from thawloop.catalog.models import Tile


class Release(models.Model):
    """A frozen dataset: rows from the moment of freezing; its files are made from them and can be made again."""

    class State(models.TextChoices):
        FROZEN = "frozen", "members fixed, files not yet written"
        READY = "ready"

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="releases")
    version = models.CharField(max_length=20, help_text="X.Y.Z: new source, added, edited.")
    state = models.CharField(max_length=10, choices=State, default=State.FROZEN)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
    definition = models.JSONField(
        help_text="Classes, modalities and grid as they were when frozen: dataset.json without the statistics."
    )
    counts = models.JSONField(default=dict, help_text="Tiles and labels per split.")
    path = models.CharField(max_length=500, blank=True, help_text="Artifact name of the dataset directory.")
    manifest_checksum = models.CharField(max_length=64, blank=True, help_text="SHA-256 of manifest.json.")
    notes = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "version"], name="release_version_once"),
            models.CheckConstraint(condition=Q(state__in=["frozen", "ready"]), name="release_state_known"),
            models.CheckConstraint(
                condition=Q(state="frozen") | (~Q(path="") & ~Q(manifest_checksum="")), name="release_ready_has_files"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign.name} {self.version}"


class ReleaseTile(models.Model):
    """A tile of a release, its split, and who labelled it: an annotator, or the imports that cover it."""

    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="release_tiles")
    tile = models.ForeignKey(Tile, on_delete=models.PROTECT)
    split = models.CharField(max_length=5, choices=Split)
    annotation = models.ForeignKey(
        Annotation,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The submission whose shapes are the tile's labels; none: the imports that cover it.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["release", "tile"], name="release_tile_once")]

    def __str__(self) -> str:
        return f"{self.tile} ({self.split})"


class ReleaseLabel(models.Model):
    """A label revision of a release. Which tiles it falls on follows from geometry."""

    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="release_labels")
    revision = models.ForeignKey(LabelRevision, on_delete=models.PROTECT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["release", "revision"], name="release_revision_once")]

    def __str__(self) -> str:
        return f"{self.revision} in {self.release}"
