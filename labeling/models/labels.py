"""Annotations as submitted, and the labels of record made from them."""

import uuid
from typing import Any

from django.conf import settings
from django.contrib.gis.db import models
from django.contrib.gis.db.models.functions import Transform
from django.contrib.postgres.indexes import GistIndex
from django.db.models import Q

from labeling.models.predictions import Prediction
from labeling.models.tasks import AnnotationTask
from thawloop.campaigns.models import Campaign, LandformClass
from thawloop.catalog.models import Tile


class Annotation(models.Model):
    """One submission by one annotator, as Label Studio held it. Append-only: an edit or a deletion is a new row."""

    class Kind(models.TextChoices):
        SUBMITTED = "submitted"
        SKIPPED = "skipped"
        DELETED = "deleted", "deleted in Label Studio"

    task = models.ForeignKey(AnnotationTask, on_delete=models.PROTECT, related_name="annotations")
    ls_generation = models.PositiveIntegerField(default=0, help_text="Of which of the campaign's projects it is.")
    ls_annotation_id = models.PositiveBigIntegerField()
    ls_updated_at = models.DateTimeField()
    kind = models.CharField(max_length=10, choices=Kind)
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT)
    annotator_name = models.CharField(max_length=254, blank=True, help_text="Who, as Label Studio knows them.")
    result = models.JSONField(default=list, help_text="Label Studio's regions, unchanged.")
    verdict = models.CharField(max_length=100, blank=True, help_text="On the whole tile; empty if none was given.")
    shapes = models.JSONField(
        default=list, help_text="What it draws and becomes labels, in tile pixels: labeling.submission.shapes_to_json."
    )
    makes_statement = models.BooleanField(
        default=False, help_text="It says of the whole tile what is there: submitted, understood, and with no doubt."
    )
    lead_time = models.FloatField(null=True, blank=True, help_text="Seconds.")
    prediction = models.ForeignKey(
        Prediction, null=True, blank=True, on_delete=models.PROTECT, related_name="annotations"
    )
    correction_iou = models.FloatField(
        null=True, blank=True, help_text="IoU of the union of shapes drawn with the union shown; 1 = nothing changed."
    )
    problems = models.JSONField(
        default=list, help_text="What could not be understood, and why: with any, it makes no statement about its tile."
    )
    mended = models.JSONField(default=list, help_text="What was mended without doubt.")
    supersedes = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="superseded_by"
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(  # together with `supersedes`: one chain of rows for each annotation
                fields=["task", "ls_generation", "ls_annotation_id"],
                condition=Q(supersedes__isnull=True),
                name="annotation_begins_once",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["submitted", "skipped", "deleted"]), name="annotation_kind_known"
            ),
        ]
        indexes = [models.Index(fields=["task"], condition=Q(makes_statement=True), name="annotation_statement")]

    def __str__(self) -> str:
        return f"annotation {self.ls_annotation_id} of {self.task.tile} ({self.kind})"


class LabelImport(models.Model):
    """One label file taken in as truth. Tiles inside `coverage` are exhaustively labelled by it, unless withdrawn."""

    # Set on what `import_labels` returns where the same was imported before and nothing was written.
    already_there = False

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="imports")
    file_name = models.CharField(max_length=300)
    checksum = models.CharField(max_length=64, help_text="SHA-256 of the file's own bytes.")
    fingerprint = models.CharField(
        max_length=64,
        blank=True,
        help_text="SHA-256 of what was read and how it was to be taken; empty for imports of older versions.",
    )
    counts = models.JSONField(default=dict, help_text="read, created, unchanged, repaired, refused.")
    coverage = models.MultiPolygonField(srid=4326, null=True, blank=True)
    unclear = models.MultiPolygonField(
        srid=4326,
        null=True,
        blank=True,
        help_text="Where features of the file could not be used: tiles there are not labelled by it.",
    )
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    confirmed: "models.ManyToManyField[Label, Any]" = models.ManyToManyField(
        "Label", blank=True, related_name="confirmed_by", help_text="Labels that it says, too, but others said before."
    )
    withdrawn = models.DateTimeField(null=True, blank=True, help_text="Since when it counts no longer.")
    withdrawn_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    withdrawn_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-id"]
        permissions = [("withdraw_labelimport", "Can withdraw label imports")]
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "fingerprint"],
                condition=Q(withdrawn__isnull=True) & ~Q(fingerprint=""),
                name="import_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.file_name} into {self.campaign.name}"


class Label(models.Model):
    """One landform instance of a campaign. Its geometry of record is its current revision."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="labels")
    tile = models.ForeignKey(
        Tile,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="labels",
        help_text="The tile it was drawn on; none for imports.",
    )
    origin = models.CharField(
        max_length=100,
        help_text="Where it came from, once per campaign: `ls:<annotation>:<region>`, "
        "`ls:<generation>/<annotation>:…` if not of the campaign's first project, or `import:<id>:<feature>`.",
    )
    current = models.OneToOneField("LabelRevision", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["campaign", "origin"], name="label_origin_once")]

    def __str__(self) -> str:
        return f"label {str(self.id)[:8]}"


class LabelRevision(models.Model):
    """One state of a label: geometry, class, who said so, when, why, from what. Append-only (database trigger)."""

    class State(models.TextChoices):
        PRESENT = "present"
        RETIRED = "retired", "no longer holds"

    label = models.ForeignKey(Label, on_delete=models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.PRESENT)
    landform_class = models.ForeignKey(LandformClass, on_delete=models.PROTECT)
    geometry = models.MultiPolygonField(srid=4326)
    properties = models.JSONField(default=dict, blank=True, help_text="Attributes of the source feature.")
    annotation = models.ForeignKey(
        Annotation, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions"
    )
    label_import = models.ForeignKey(
        LabelImport, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions"
    )
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT)
    author_name = models.CharField(max_length=254)
    reason = models.CharField(max_length=300)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["label_id", "number"]
        constraints = [
            models.UniqueConstraint(fields=["label", "number"], name="revision_number_once"),
            models.CheckConstraint(condition=Q(state__in=["present", "retired"]), name="revision_state_known"),
            models.CheckConstraint(
                condition=~(Q(annotation__isnull=False) & Q(label_import__isnull=False)), name="revision_one_source"
            ),
        ]
        indexes = [GistIndex(Transform("geometry", 3413), name="revision_polar")]  # the map asks in its own projection

    def __str__(self) -> str:
        return f"{self.label} r{self.number}"
