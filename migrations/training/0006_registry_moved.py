"""Models that moved to another app: only what the migrations know of them changes, the tables stay."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("campaigns", "0001_initial"),
        ("labeling", "0016_registry_moved"),
        ("registry", "0001_initial"),
        ("training", "0005_tables_of_registry"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.RemoveField(
                model_name="modelversion",
                name="campaign",
            ),
            migrations.RemoveField(
                model_name="modelversion",
                name="parent",
            ),
            migrations.RemoveField(
                model_name="modelversion",
                name="release",
            ),
            migrations.RemoveField(
                model_name="modelversion",
                name="retraining",
            ),
            migrations.RemoveField(
                model_name="promotion",
                name="previous",
            ),
            migrations.AlterField(
                model_name="evaluation",
                name="model_version",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="evaluations",
                    to="registry.modelversion",
                ),
            ),
            migrations.RemoveField(
                model_name="promotion",
                name="champion",
            ),
            migrations.RemoveField(
                model_name="promotion",
                name="actor",
            ),
            migrations.RemoveField(
                model_name="promotion",
                name="campaign",
            ),
            migrations.AlterField(
                model_name="retraining",
                name="campaign",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="retrainings",
                    to="campaigns.campaign",
                ),
            ),
            migrations.AlterField(
                model_name="retrainpolicy",
                name="campaign",
                field=models.OneToOneField(
                    on_delete=django.db.models.deletion.CASCADE,
                    related_name="retrain_policy",
                    to="campaigns.campaign",
                ),
            ),
            migrations.DeleteModel(
                name="ModelAlias",
            ),
            migrations.DeleteModel(
                name="ModelVersion",
            ),
            migrations.DeleteModel(
                name="Promotion",
            ),
        ]),
    ]
