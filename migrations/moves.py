"""For migrations: a model that moved to another app keeps its permissions, its history and its audit trail."""

from collections.abc import Iterable
from typing import Any

from django.db import migrations


def rename_references(before: str, after: str, models: Iterable[str]) -> migrations.RunPython:
    """What names models by app and name follows them: content types (permissions, the admin's log), audit entries.

    Args:
        before: Label of the app that had the models.
        after: Label of the app that has them.
        models: Their names, in small letters.
    """
    names = tuple(models)

    def move(source: str, target: str) -> Any:
        def run(apps: Any, schema_editor: Any) -> None:
            with schema_editor.connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE django_content_type SET app_label = %s WHERE app_label = %s AND model = ANY(%s)",
                    [target, source, list(names)],
                )
                # Append-only: the trigger refuses what is no migration.
                cursor.execute("ALTER TABLE core_auditentry DISABLE TRIGGER USER")
                for name in names:
                    cursor.execute(
                        "UPDATE core_auditentry SET object_type = %s WHERE object_type = %s",
                        [f"{target}.{name}", f"{source}.{name}"],
                    )
                cursor.execute("ALTER TABLE core_auditentry ENABLE TRIGGER USER")

        return run

    return migrations.RunPython(move(before, after), move(after, before))


def rename_jobs(before: str, after: str, functions: Iterable[str]) -> migrations.RunPython:
    """Job functions that moved to another module: rows that wait, or that a person may try again, name the new one.

    Args:
        before: The module that had them, dotted.
        after: The module that has them.
        functions: Their names.
    """
    names = tuple(functions)

    def move(source: str, target: str) -> Any:
        def run(apps: Any, schema_editor: Any) -> None:
            with schema_editor.connection.cursor() as cursor:
                for name in names:
                    cursor.execute(
                        "UPDATE core_job SET function = %s WHERE function = %s", [f"{target}.{name}", f"{source}.{name}"]
                    )

        return run

    return migrations.RunPython(move(before, after), move(after, before))
