"""Database connections in processes that are busy for hours."""

from django.db import close_old_connections, connection


def replace_broken_connection() -> None:
    """Drop this thread's connection if it broke or is too old; the next query opens another.

    Does nothing inside a transaction, which cannot move to another connection.
    """
    if not connection.in_atomic_block:
        close_old_connections()
