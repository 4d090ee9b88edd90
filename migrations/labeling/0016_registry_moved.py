"""Models that moved to another app: only what the migrations know of them changes, the tables stay."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        (
            "labeling",
            "0015_campaigns_moved",
        ),
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.AlterField(
                model_name="acquisitionbatch",
                name="model_version",
                field=models.ForeignKey(
                    blank=True,
                    null=True,
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="batches",
                    to="registry.modelversion",
                ),
            ),
            migrations.AlterField(
                model_name="prediction",
                name="model_version",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="predictions",
                    to="registry.modelversion",
                ),
            ),
        ]),
    ]
