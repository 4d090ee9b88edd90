"""One at a time: a lock per campaign and purpose that dies with the process that holds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from django.db import connection

from labeling.models import Campaign


@contextmanager
def exclusive(purpose: str, campaign: Campaign, *, wait: bool = True) -> Iterator[bool]:
    """Hold a PostgreSQL advisory lock of this session while the block runs.

    Args:
        purpose: What must not be done twice at once.
        campaign: For which campaign.
        wait: Wait for whoever holds it; otherwise the block is run at once and told whether it holds the lock.
    """
    key = int.from_bytes(blake2b(f"labeling:{purpose}:{campaign.pk}".encode(), digest_size=8).digest(), signed=True)
    with connection.cursor() as cursor:
        if wait:
            cursor.execute("SELECT pg_advisory_lock(%s)", [key])
            held = True
        else:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
            held = bool(cursor.fetchone()[0])
    try:
        yield held
    finally:
        if held:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])
