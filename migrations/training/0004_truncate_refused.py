"""Emptying a table of history at once (TRUNCATE) is refused, too: triggers for rows do not see it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("training", "0003_training_run_init"), ("core", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON training_promotion FOR EACH STATEMENT EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only_truncate ON training_promotion",
        ),
    ]
