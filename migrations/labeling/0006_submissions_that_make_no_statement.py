"""Submissions in which something was not understood make no statement about their tile, those of before included."""

from typing import Any

from django.db import migrations, models


def settle_again(apps: Any, schema_editor: Any) -> None:
    """Have a worker settle labels anew where such submissions gave some; sync everything once, to tell annotators."""
    misunderstood = apps.get_model("labeling", "Annotation").objects.filter(kind="submitted").exclude(problems=[])
    for campaign in set(misunderstood.values_list("task__campaign", flat=True)):
        apps.get_model("core", "Job").objects.create(
            function="labeling.jobs.settle", key=f"settle:campaign:{campaign}", args={"campaign": campaign}
        )
        apps.get_model("labeling", "Campaign").objects.filter(pk=campaign).update(ls_synced_until=None)


class Migration(migrations.Migration):
    dependencies = [("core", "0003_job_not_before"), ("labeling", "0005_task_without_project")]

    operations = [
        migrations.AddField(
            "annotation",
            "mended",
            models.JSONField(default=list, help_text="What was mended without doubt."),
        ),
        migrations.AlterField(
            "annotation",
            "problems",
            models.JSONField(
                default=list,
                help_text="What could not be understood, and why: with any, it makes no statement about its tile.",
            ),
        ),
        migrations.AlterField(
            "annotationtask",
            "state",
            models.CharField(
                choices=[
                    ("pending", "not yet in Label Studio"),
                    ("open", "waits for an annotator"),
                    ("submitted", "Submitted"),
                    ("returned", "submitted, but not understood in full"),
                    ("skipped", "Skipped"),
                    ("withdrawn", "gone from Label Studio"),
                ],
                default="pending",
                max_length=10,
            ),
        ),
        migrations.RemoveConstraint("annotationtask", "task_state_known"),
        migrations.AddConstraint(
            "annotationtask",
            models.CheckConstraint(
                condition=models.Q(state__in=["pending", "open", "submitted", "returned", "skipped", "withdrawn"]),
                name="task_state_known",
            ),
        ),
        migrations.RunPython(settle_again, migrations.RunPython.noop),
    ]
