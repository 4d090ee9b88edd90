"""Models' predictions."""

from django.contrib.gis.db import models
from django.contrib.gis.db.models.functions import Transform
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GistIndex
from django.db.models import Q

from thawloop.campaigns.models import LandformClass
from thawloop.catalog.models import Tile


class Prediction(models.Model):
    """What one model version said about one tile."""

    tile = models.ForeignKey(Tile, on_delete=models.PROTECT, related_name="predictions")
    model_version = models.ForeignKey("registry.ModelVersion", on_delete=models.PROTECT, related_name="predictions")
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
        indexes = [
            # The map and acquisition ask for one version's uncertainty, and embeddings are large.
            models.Index(fields=["model_version", "tile"], include=["id", "uncertainty"], name="prediction_of_version"),
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
        indexes = [
            GistIndex(Transform("geometry", 3413), name="instance_polar"),  # the map asks in its own projection
            models.Index(fields=["prediction"], include=["score"], name="instance_score"),
        ]

    def __str__(self) -> str:
        return f"{self.landform_class} {self.score:.2f}"
