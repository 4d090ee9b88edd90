"""Rows that record history are never changed or removed: the database refuses."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial"), ("core", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON training_promotion FOR EACH ROW EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only ON training_promotion",
        ),
    ]
