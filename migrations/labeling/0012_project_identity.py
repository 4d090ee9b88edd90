"""Numbers of Label Studio belong to one project; secrets can be rotated."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

APPEND_ONLY = """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON labeling_secretrotation
    FOR EACH ROW EXECUTE FUNCTION thawloop_append_only();
    CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON labeling_secretrotation
    FOR EACH STATEMENT EXECUTE FUNCTION thawloop_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("core", "0002_append_only"),
        ("labeling", "0011_map_from_afar"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            "campaign",
            "ls_mark",
            models.CharField(
                blank=True,
                default="",
                max_length=60,
                help_text="What its project's description must hold, or it is another project.",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "campaign",
            "ls_generation",
            models.PositiveIntegerField(
                default=0,
                help_text="How many projects it had before this one: numbers in Label Studio belong to one of them.",
            ),
        ),
        migrations.AddField(
            "campaign",
            "ls_stopped",
            models.TextField(
                blank=True,
                default="",
                help_text="Why the exchange with Label Studio stopped and what a lead can do; empty: it goes on.",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "campaign",
            "ls_removals",
            models.PositiveIntegerField(
                blank=True, null=True, help_text="How many removals wait for a lead to accept them."
            ),
        ),
        migrations.AddField(
            "campaign",
            "ls_connections",
            models.CharField(
                blank=True,
                default="",
                max_length=32,
                help_text="Digest of the addresses and secrets that its project was last told.",
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            "annotation",
            "ls_generation",
            models.PositiveIntegerField(default=0, help_text="Of which of the campaign's projects it is."),
        ),
        migrations.AlterField(
            "annotationtask",
            "ls_task_id",
            models.PositiveBigIntegerField(
                blank=True, null=True, help_text="Its number in the campaign's present project."
            ),
        ),
        migrations.AlterField(
            "label",
            "origin",
            models.CharField(
                max_length=100,
                help_text="Where it came from, once per campaign: `ls:<annotation>:<region>`, "
                "`ls:<generation>/<annotation>:…` if not of the campaign's first project, or `import:<id>:<feature>`.",
            ),
        ),
        migrations.RemoveConstraint("annotation", "annotation_recorded_once"),
        migrations.AddConstraint(
            "annotation",
            models.UniqueConstraint(
                condition=models.Q(supersedes__isnull=True),
                fields=("task", "ls_generation", "ls_annotation_id"),
                name="annotation_begins_once",
            ),
        ),
        migrations.CreateModel(
            "SecretRotation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("reason", models.CharField(blank=True, max_length=300)),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.RunSQL(
            APPEND_ONLY,
            "DROP TRIGGER append_only ON labeling_secretrotation;"
            " DROP TRIGGER append_only_truncate ON labeling_secretrotation",
        ),
    ]
