"""Campaigns become a room of their own: its tables are named after it. The next migrations move the models."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("labeling", "0013_label_import_unclear")]

    operations = [
        migrations.AlterModelTable(name, f"campaigns_{name}")
        for name in ("landformclass", "campaign", "campaignmodality", "campaignregion")
    ]
