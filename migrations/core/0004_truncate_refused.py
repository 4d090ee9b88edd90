"""Emptying a table of history at once (TRUNCATE) is refused, too: triggers for rows do not see it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("core", "0003_job_not_before")]

    operations = [
        migrations.RunSQL(
            "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON core_auditentry FOR EACH STATEMENT EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only_truncate ON core_auditentry",
        ),
    ]
