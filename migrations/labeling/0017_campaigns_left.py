"""Models that moved to another app: only what the migrations know of them changes, the tables stay."""

from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ("labeling", "0016_registry_moved"),
        ("releases", "0004_campaigns_moved"),
        ("training", "0006_registry_moved"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[
            migrations.DeleteModel(
                name="Campaign",
            ),
            migrations.DeleteModel(
                name="CampaignModality",
            ),
            migrations.DeleteModel(
                name="CampaignRegion",
            ),
            migrations.DeleteModel(
                name="LandformClass",
            ),
        ]),
    ]
