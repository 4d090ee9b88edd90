"""What a submission says is kept in columns: its verdict, the shapes that become labels, whether it makes a statement.

They are filled by reading the submissions with the code of today, once.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.db import migrations, models

from migrations.moves import rename_jobs

MANY = 500


def understand(apps: Any, schema_editor: Any) -> None:
    """Fill the columns. The table is append-only: the trigger refuses what is no migration."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("ALTER TABLE labeling_annotation DISABLE TRIGGER USER")
    annotations = apps.get_model("labeling", "Annotation").objects
    understood = _understood(apps)
    while rows := list(islice(understood, MANY)):
        annotations.bulk_update(rows, ["verdict", "shapes", "makes_statement"])
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("ALTER TABLE labeling_annotation ENABLE TRIGGER USER")


def _understood(apps: Any) -> Iterator[Any]:
    from labeling.labelstudio.regions import read_result
    from labeling.submission import NO_STATEMENT, shapes_to_json

    classes: dict[int, dict[str, int]] = {}
    submitted = apps.get_model("labeling", "Annotation").objects.filter(kind="submitted")
    for row in submitted.select_related("task__campaign", "task__tile__grid").order_by("pk").iterator(MANY):
        campaign = row.task.campaign
        if campaign.pk not in classes:
            classes[campaign.pk] = dict(campaign.classes.values_list("name", "pk"))
        known = classes[campaign.pk]
        reading = read_result(row.result, tile_size=row.task.tile.grid.tile_size, classes=known)
        row.verdict = reading.verdict[:100]
        # What was judged when it came in stands: a row with problems says nothing, whatever is understood today.
        row.makes_statement = not row.problems and row.verdict not in NO_STATEMENT
        if row.makes_statement and not reading.verdict:
            row.shapes = shapes_to_json(reading.shapes, known)
        yield row


class Migration(migrations.Migration):
    dependencies = [("labeling", "0017_campaigns_left"), ("core", "0005_tokens_and_failed_logins")]

    operations = [
        migrations.AddField(
            "annotation",
            "verdict",
            models.CharField(
                blank=True, default="", help_text="On the whole tile; empty if none was given.", max_length=100
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "annotation",
            "shapes",
            models.JSONField(
                default=list,
                help_text="What it draws and becomes labels, in tile pixels: labeling.submission.shapes_to_json.",
            ),
        ),
        migrations.AddField(
            "annotation",
            "makes_statement",
            models.BooleanField(
                default=False,
                help_text="It says of the whole tile what is there: submitted, understood, and with no doubt.",
            ),
        ),
        migrations.RunPython(understand, migrations.RunPython.noop),
        migrations.AddIndex(
            "annotation",
            models.Index(condition=models.Q(("makes_statement", True)), fields=["task"], name="annotation_statement"),
        ),
        rename_jobs(
            "labeling.jobs",
            "labeling.labelstudio.jobs",
            ("process_events", "push", "refresh", "tidy", "synchronise", "settle"),
        ),
    ]
