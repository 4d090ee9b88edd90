"""Values that fit into a JSON column."""

import json
import math
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder


def jsonable(value: Any) -> Any:
    """Dates, UUIDs and decimals become strings; NaN and infinities, which JSON does not know, become null; NUL
    characters, which Postgres does not take, go.

    Raises:
        TypeError: there is something else in it that JSON cannot hold.
    """
    return _acceptable(json.loads(json.dumps(value, cls=DjangoJSONEncoder)))


def _acceptable(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, dict):
        return {_acceptable(key): _acceptable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_acceptable(item) for item in value]
    return value
