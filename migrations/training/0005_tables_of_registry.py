"""The registry becomes a room of its own: its tables are named after it. The next migrations move the models."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("training", "0004_truncate_refused")]

    operations = [
        migrations.AlterModelTable(name, f"registry_{name}") for name in ("modelversion", "modelalias", "promotion")
    ]
