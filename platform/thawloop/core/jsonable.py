"""Values that fit into a JSON column: PostgreSQL's jsonb knows neither NUL, nor lone surrogates, nor NaN."""

import json
import math
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def jsonable(value: Any) -> Any:
    """As `clean_json`, for values that are not JSON yet: dates, UUIDs and decimals become strings.

    Raises:
        TypeError: there is something else in it that JSON cannot hold.
    """
    return clean_json(json.loads(json.dumps(value, cls=DjangoJSONEncoder)))


def clean_json(value: Any) -> Any:
    """The same JSON value with what PostgreSQL cannot hold replaced: U+FFFD for characters, null for numbers."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean_text(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in value]
    return value


def clean_text(text: str) -> str:
    """A text without NUL and lone surrogates."""
    return text.replace("\0", _REPLACEMENT).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
