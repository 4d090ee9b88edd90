"""The API's OpenAPI description: every operation with the errors that it may answer."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.relations import SlugRelatedField


class RefusalSerializer(serializers.Serializer[Any]):
    """Why something is refused, and what to do."""

    detail = serializers.CharField()


INVALID = {
    "description": "Why something is refused (`detail`), or what is wrong with each field.",
    "oneOf": [
        {"type": "object", "additionalProperties": {}},
        {"type": "array", "items": {}},
    ],
}
_SENTENCES = {
    400: "What was sent cannot be used.",
    401: "Nobody is logged in, or the token is unknown or expired.",
    403: "This account may not do this.",
    404: "It does not exist.",
    406: "No such format.",
    409: "It cannot be done now: something else is going on, or it was already done.",
    415: "The body is in no format that is read here.",
    429: "Too many requests: wait as long as Retry-After says.",
    503: "A service that this needs does not answer.",
}


class Description(AutoSchema):
    """drf-spectacular's description, with errors, and with `null` where a named row may be missing."""

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        """The view's own answers and the errors that this kind of request may meet."""
        bodies = super()._get_response_bodies(direction)
        for code in sorted(self._errors()):
            if str(code) not in bodies:
                schema = INVALID if code == 400 else RefusalSerializer
                answer = OpenApiResponse(schema, description=_SENTENCES[code])
                bodies[str(code)] = self._get_response_for_code(answer, str(code), ["application/json"], direction)
        return bodies

    def _errors(self) -> set[int]:
        errors = {400, 404, 406}
        if AllowAny not in self.view.permission_classes:
            errors |= {401, 403}
        if self.method in ("POST", "PUT", "PATCH"):
            errors.add(415)
        if self.method != "GET" or getattr(self.view, "action", None) not in ("list", "retrieve"):
            errors |= {409, 503}
        if self.view.get_throttles() and getattr(self.view, "throttle_scope", None):
            errors.add(429)
        return errors

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        """As the parent's; a row that may be missing is null in answers, however its field is declared."""
        schema = super()._map_serializer_field(field, direction, bypass_extensions)
        if direction == "response" and isinstance(field, SlugRelatedField) and _may_be_missing(field):
            return {**schema, "nullable": True}
        return schema


def _may_be_missing(field: Any) -> bool:
    """Whether a relation on the way to the named row may be empty."""
    model = getattr(getattr(field.parent, "Meta", None), "model", None)
    for name in (field.source or "").split("."):
        if model is None:
            return False
        relation = model._meta.get_field(name)
        if relation.null:
            return True
        model = relation.related_model
    return False
