"""A throwaway PostGIS and Redis with our tables, as the benchmarks of the platform need them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def throwaway(*, labelstudio: bool = False, **environment: str) -> Iterator[Path]:
    """Servers of its own, in which commits are real; the yielded folder is empty and a data root.

    Args:
        labelstudio: With a Label Studio that the platform knows.
        environment: Settings beside the usual ones.
    """
    from devstack.stack import LocalStack

    with tempfile.TemporaryDirectory(prefix="thawloop-benchmark-") as folder, LocalStack.throwaway() as stack:
        root = Path(folder)
        (root / "var" / "static").mkdir(parents=True)
        os.environ |= stack.environment | {
            "DJANGO_SETTINGS_MODULE": "thawloop.settings",
            "THAWLOOP_ENV_FILE": os.devnull,
            "THAWLOOP_VAR": str(root / "var"),
            "THAWLOOP_DATA_ROOTS": folder,
            "THAWLOOP_LOG_LEVEL": "ERROR",
            "DJANGO_ALLOWED_HOSTS": "testserver",
            "ML_BACKEND_URL": "http://127.0.0.1:9",  # nobody there
            **environment,
        }
        if labelstudio:
            server = stack.start_labelstudio()
            os.environ |= {
                "LABEL_STUDIO_URL": server.url,
                "LABEL_STUDIO_TOKEN": server.token,
                "THAWLOOP_WEBHOOK_SECRET": "a-secret-of-the-benchmark",
            }
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        try:
            yield root
        finally:
            connections.close_all()
