"""What annotators get to see of a prediction."""

from labeling.labelstudio.regions import ShownInstance
from labeling.models import Prediction


def shown_instances(prediction: Prediction, score_threshold: float) -> list[ShownInstance]:
    """A prediction's instances that are good enough to be shown, best first."""
    rows = [row for row in prediction.instances.all() if row.score >= score_threshold]
    rows.sort(key=lambda row: (-row.score, row.region_id))
    return [ShownInstance(row.region_id, row.landform_class.name, row.rings, row.score) for row in rows]
