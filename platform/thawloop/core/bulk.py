"""Queries without large columns: geometries, JSON documents and bytes of related rows stay in the database.

A list that follows a relation to show a name would otherwise fetch all other columns too, once per row: a region's
outline of a megabyte for each of a thousand tiles.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from django.contrib.gis.db.models import GeometryField
from django.db.models import BinaryField, Count, IntegerField, JSONField, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

Row = TypeVar("Row", bound=Model)

BULKY = (BinaryField, GeometryField, JSONField)


def without_bulk(queryset: QuerySet[Row], *, related: Iterable[str] = (), keep: Iterable[str] = ()) -> QuerySet[Row]:
    """Defer the large fields of the rows that a queryset joins; reading one later costs a query of its own.

    Args:
        queryset: With `select_related` of named relations.
        related: Relations that will be joined later, as in `ModelAdmin.list_select_related`.
        keep: Paths of bulky fields that are needed, e.g. `current__geometry`.
    """
    joined = queryset.query.select_related
    wanted: dict[str, Any] = dict(joined) if isinstance(joined, dict) else {}
    for path in related:
        step = wanted
        for name in path.split("__"):
            step = step.setdefault(name, {})
    return queryset.defer(*(set(_bulky(queryset.model, wanted)) - set(keep)))


def bulky_fields(model: type[Model]) -> list[str]:
    """Names of a model's fields that may be large."""
    return [field.name for field in model._meta.concrete_fields if isinstance(field, BULKY)]


def _bulky(model: type[Model], joined: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, further in joined.items():
        other = model._meta.get_field(name).related_model
        if not isinstance(other, type):  # a generic relation
            continue
        path = f"{prefix}{name}__"
        yield from (path + field for field in bulky_fields(other))
        yield from _bulky(other, further, path)


class LightRelations(BaseFilterBackend):
    """`without_bulk` for every list and row of the API; a view names exceptions in `related_bulk`."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        """Defer."""
        return without_bulk(queryset, keep=getattr(view, "related_bulk", ()))


def count_of(model: type[Model], parent: str, *conditions: Q) -> Coalesce:
    """How many rows of a model belong to each row of a queryset, for `annotate()`.

    A subquery for each count: counts over joins of several relations multiply them (five thousand tasks and twenty
    thousand labels make a hundred million rows), and `distinct` only hides that.

    Args:
        model: What to count.
        parent: Its foreign key to the queryset's model.
        conditions: Which of them.
    """
    rows = model._default_manager.filter(*conditions, **{parent: OuterRef("pk")}).order_by()
    counted = rows.values(parent).annotate(count_of_rows=Count("pk")).values("count_of_rows")
    return Coalesce(Subquery(counted), 0, output_field=IntegerField())
