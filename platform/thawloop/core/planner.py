"""What PostgreSQL's planner knows of tables that were just filled.

Autovacuum looks once a minute. Until then a table that got a hundred thousand rows is planned for as if it were nearly
empty, and a join that takes seconds by its index takes minutes without.
"""

from django.db import connection
from django.db.models import Model

MANY = 1_000


def renew_statistics(rows: int, *models: type[Model]) -> None:
    """Have tables' statistics taken anew, if many rows were written at once; in the caller's transaction, if any."""
    if rows < MANY:
        return
    # In one order: two transactions that do so cannot wait for each other.
    tables = sorted(model._meta.db_table for model in models)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE " + ", ".join(map(connection.ops.quote_name, tables)))
