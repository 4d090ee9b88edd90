"""Label Studio's users: their e-mail addresses, cached for a while."""

from collections.abc import Iterable
from typing import Any

import structlog
from django.core.cache import cache

from labeling.labelstudio.client import Client
from thawloop.core.errors import Refused

log = structlog.get_logger(__name__)

_SECONDS = 600


def known_people(annotations: Iterable[dict[str, Any]], client: Client, mark: str) -> dict[int, str]:
    """E-mail addresses of Label Studio's users by id, fetched again if an annotation's author is not among them.

    A failed request is logged and not raised: then the cached addresses are returned.

    Args:
        annotations: Their JSON.
        client: A connection to Label Studio.
        mark: Of the project that they are of: in another server's, the same numbers are other people.
    """
    key = f"labeling.labelstudio.people.{mark}"
    authors = {annotation.get("completed_by") for annotation in annotations}
    people: dict[int, str] = cache.get(key, {})
    unknown = {author for author in authors if type(author) is int and author not in people}
    if not unknown:
        return people
    try:
        people = client.people()
    except Refused as error:
        log.warning("annotators are known by number only", why=str(error))
        return people
    cache.set(key, people, _SECONDS)
    return people
