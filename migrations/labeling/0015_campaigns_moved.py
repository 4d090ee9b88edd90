"""Models that moved to another app: only what the migrations know of them changes, the tables stay."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("campaigns", "0001_initial"),
        ("labeling", "0014_tables_of_campaigns"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.RemoveField(
                model_name="campaign",
                name="classes",
            ),
            migrations.RemoveField(
                model_name="campaign",
                name="created_by",
            ),
            migrations.RemoveField(
                model_name="campaign",
                name="grid",
            ),
            migrations.RemoveField(
                model_name="campaign",
                name="modalities",
            ),
            migrations.RemoveField(
                model_name="campaign",
                name="regions",
            ),
            migrations.AlterField(
                model_name="webhookevent",
                name="campaign",
                field=models.ForeignKey(
                    blank=True,
                    null=True,
                    on_delete=django.db.models.deletion.SET_NULL,
                    to="campaigns.campaign",
                ),
            ),
            migrations.AlterField(
                model_name="label",
                name="campaign",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="labels",
                    to="campaigns.campaign",
                ),
            ),
            migrations.AlterField(
                model_name="annotationtask",
                name="campaign",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="tasks",
                    to="campaigns.campaign",
                ),
            ),
            migrations.RemoveField(
                model_name="campaignregion",
                name="campaign",
            ),
            migrations.RemoveField(
                model_name="campaignmodality",
                name="campaign",
            ),
            migrations.AlterField(
                model_name="acquisitionbatch",
                name="campaign",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="batches",
                    to="campaigns.campaign",
                ),
            ),
            migrations.AlterField(
                model_name="labelimport",
                name="campaign",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="imports",
                    to="campaigns.campaign",
                ),
            ),
            migrations.RemoveField(
                model_name="campaignmodality",
                name="modality",
            ),
            migrations.RemoveField(
                model_name="campaignregion",
                name="region",
            ),
            migrations.AlterField(
                model_name="predictedinstance",
                name="landform_class",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    to="campaigns.landformclass",
                ),
            ),
            migrations.AlterField(
                model_name="labelrevision",
                name="landform_class",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    to="campaigns.landformclass",
                ),
            ),
        ]),
    ]
