"""Emptying a table of history at once (TRUNCATE) is refused, too: triggers for rows do not see it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("labeling", "0008_release_terms"), ("core", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON labeling_annotation FOR EACH STATEMENT EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only_truncate ON labeling_annotation",
        ),
        migrations.RunSQL(
            "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON labeling_labelrevision FOR EACH STATEMENT EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only_truncate ON labeling_labelrevision",
        ),
    ]
