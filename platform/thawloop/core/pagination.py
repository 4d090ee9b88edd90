"""Keyset pagination, for lists that can become long."""

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination


class KeysetPagination(CursorPagination):
    """Newest first, by primary key, so that a page costs the same however deep it is."""

    ordering: str | tuple[str, ...] = "-pk"
    page_size_query_param = "page_size"
    max_page_size = 1000

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        """One page; an invalid cursor is not found."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError) as error:
            raise NotFound(self.invalid_cursor_message) from error


class NewestFirst(KeysetPagination):
    """For rows with random ids: their time orders them, the id decides between equal times."""

    ordering = ("-created", "-id")
