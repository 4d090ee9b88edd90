"""Rows that record history are never changed or removed: the database refuses."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("labeling", "0002_initial"), ("core", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON labeling_annotation FOR EACH ROW EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only ON labeling_annotation",
        ),
        migrations.RunSQL(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON labeling_labelrevision FOR EACH ROW EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only ON labeling_labelrevision",
        ),
    ]
