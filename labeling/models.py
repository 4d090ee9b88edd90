"""Who says what is where: campaigns, predictions, annotations and labels."""

import uuid

from django.conf import settings
from django.contrib.gis.db import models
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db.models import Q

from thawloop.catalog.models import NAME, Modality, Region, Tile, TileGrid


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
        default=dict, blank=True, help_text="Acquisition settings: see labeling.configuration.AcquisitionSettings."
    )
    detector = models.JSONField(
        default=dict, blank=True, help_text="Model settings: see labeling.configuration.DetectorSettings."
    )
    score_threshold = models.FloatField(default=0.3, help_text="Instances below it are not shown to annotators.")
    ls_project_id = models.PositiveIntegerField(null=True, blank=True, unique=True)
    ls_view_id = models.PositiveIntegerField(null=True, blank=True)
    ls_webhook_id = models.PositiveIntegerField(null=True, blank=True)
    ls_ml_backend_id = models.PositiveIntegerField(null=True, blank=True)
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


class Prediction(models.Model):
    """What one model version said about one tile."""

    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="predictions")
    model_version = models.ForeignKey("training.ModelVersion", on_delete=models.PROTECT, related_name="predictions")
    embedding = models.BinaryField(help_text="float32 [D], little endian.")
    uncertainty = models.FloatField(help_text="0 (certain) to 1; what acquisition ranks by.")
    uncertainty_parts = models.JSONField(default=dict, help_text="mask_entropy, class_entropy, stage_disagreement.")
    seconds = models.FloatField(default=0)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tile", "model_version"], name="prediction_once_per_tile_and_version"),
            models.CheckConstraint(
                condition=Q(uncertainty__gte=0, uncertainty__lte=1), name="prediction_uncertainty_is_fraction"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tile} by {self.model_version}"


class PredictedInstance(models.Model):
    """One instance of a prediction: polygon with holes, class, score, what each cascade stage said."""

    prediction = models.ForeignKey(Prediction, on_delete=models.CASCADE, related_name="instances")
    region_id = models.CharField(max_length=20, help_text="The region's id in Label Studio; survives edits.")
    landform_class = models.ForeignKey(LandformClass, on_delete=models.PROTECT)
    rings = models.JSONField(help_text="Tile pixel coordinates [[[x, y], ...], ...]; first ring exterior, rest holes.")
    geometry = models.PolygonField(srid=4326)
    score = models.FloatField()
    stage_scores = ArrayField(models.FloatField(), size=3)
    stage_boxes = models.JSONField(help_text="[3][x0, y0, x1, y1] in tile pixels.")
    mask_entropy = models.FloatField()
    class_entropy = models.FloatField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["prediction", "region_id"], name="instance_region_id_once"),
            models.CheckConstraint(condition=Q(score__gte=0, score__lte=1), name="instance_score_is_fraction"),
        ]

    def __str__(self) -> str:
        return f"{self.landform_class} {self.score:.2f}"


class AcquisitionBatch(models.Model):
    """The tiles chosen in one go: scores, strategy, model version, seed, and the random control arm."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="batches")
    number = models.PositiveIntegerField()
    strategy = models.CharField(max_length=50)
    parameters = models.JSONField(default=dict)
    seed = models.BigIntegerField()
    model_version = models.ForeignKey(
        "training.ModelVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="batches"
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
    ls_task_id = models.PositiveBigIntegerField(null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["batch_id", "rank"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "tile"], name="task_once_per_tile"),
            models.UniqueConstraint(fields=["campaign", "ls_task_id"], name="task_ls_id_once"),
            models.CheckConstraint(
                condition=Q(state__in=["pending", "open", "submitted", "skipped", "withdrawn"]), name="task_state_known"
            ),
            models.CheckConstraint(condition=Q(arm__in=["acquired", "random", "manual"]), name="task_arm_known"),
            models.CheckConstraint(
                condition=Q(state="pending") | Q(ls_task_id__isnull=False), name="task_in_label_studio_unless_pending"
            ),
        ]
        indexes = [models.Index(fields=["campaign", "state"])]

    def __str__(self) -> str:
        return f"{self.tile} ({self.state})"


class WebhookEvent(models.Model):
    """A webhook body as it came, before anything is made of it. A hint: the reconciler makes things right."""

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


class Annotation(models.Model):
    """One submission by one annotator, as Label Studio held it. Append-only: an edit or a deletion is a new row."""

    class Kind(models.TextChoices):
        SUBMITTED = "submitted"
        SKIPPED = "skipped"
        DELETED = "deleted", "deleted in Label Studio"

    task = models.ForeignKey(AnnotationTask, on_delete=models.PROTECT, related_name="annotations")
    ls_annotation_id = models.PositiveBigIntegerField()
    ls_updated_at = models.DateTimeField()
    kind = models.CharField(max_length=10, choices=Kind)
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT)
    annotator_name = models.CharField(max_length=254, blank=True, help_text="Who, as Label Studio knows them.")
    result = models.JSONField(default=list, help_text="Label Studio's regions, unchanged.")
    lead_time = models.FloatField(null=True, blank=True, help_text="Seconds.")
    prediction = models.ForeignKey(
        Prediction, null=True, blank=True, on_delete=models.PROTECT, related_name="annotations"
    )
    correction_iou = models.FloatField(
        null=True, blank=True, help_text="IoU of the union of shapes drawn with the union shown; 1 = nothing changed."
    )
    problems = models.JSONField(default=list, help_text="Regions that could not become labels, and why.")
    supersedes = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="superseded_by"
    )
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["task", "ls_annotation_id", "ls_updated_at", "kind"], name="annotation_recorded_once"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["submitted", "skipped", "deleted"]), name="annotation_kind_known"
            ),
        ]

    def __str__(self) -> str:
        return f"annotation {self.ls_annotation_id} of {self.task.tile} ({self.kind})"


class LabelImport(models.Model):
    """One label file taken in as truth. Tiles inside `coverage` are exhaustively labelled by it."""

    campaign = models.ForeignKey(Campaign, on_delete=models.PROTECT, related_name="imports")
    file_name = models.CharField(max_length=300)
    checksum = models.CharField(max_length=64)
    counts = models.JSONField(default=dict, help_text="read, created, unchanged, repaired, refused.")
    coverage = models.MultiPolygonField(srid=4326, null=True, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["campaign", "checksum"], name="import_file_once")]

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
        help_text="Where it came from, once per campaign: `ls:<annotation>:<region>` or `import:<id>:<feature>`.",
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

    def __str__(self) -> str:
        return f"{self.label} r{self.number}"
