"""Rows that record history are never changed or removed: the database refuses."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial")]

    operations = [
        migrations.RunSQL(
            """
            CREATE FUNCTION thawloop_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
            END $$
            """,
            "DROP FUNCTION thawloop_append_only()",
        ),
        migrations.RunSQL(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON core_auditentry FOR EACH ROW EXECUTE FUNCTION thawloop_append_only()",
            "DROP TRIGGER append_only ON core_auditentry",
        ),
    ]
