"""Models that moved to another app: only what the migrations know of them changes, the tables stay."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("campaigns", "0001_initial"),
        ("releases", "0003_release_terms"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.AlterField(
                model_name="release",
                name="campaign",
                field=models.ForeignKey(
                    on_delete=django.db.models.deletion.PROTECT,
                    related_name="releases",
                    to="campaigns.campaign",
                ),
            ),
        ]),
    ]
