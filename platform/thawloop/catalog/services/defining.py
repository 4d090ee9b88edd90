"""Named things are defined once: asking again for the same is fine, asking for something else under its name is not."""

from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model

from thawloop.catalog.errors import AlreadyDefined, DefinitionRefused
from thawloop.core.services import audit

M = TypeVar("M", bound=Model)


def validated(row: M) -> M:
    """Run the model's own checks and turn what they find into one sentence."""
    try:
        row.full_clean()
    except ValidationError as error:
        problems = "; ".join(
            f"{field.replace('__all__', 'definition')}: {' '.join(messages)}"
            for field, messages in error.message_dict.items()
        )
        raise DefinitionRefused(f"{_label(row)} `{getattr(row, 'name', row)}` cannot be defined: {problems}") from error
    return row


def check_identical(existing: Model, fields: dict[str, Any]) -> None:
    """Refuse when a row differs from what is asked for under its name."""
    for field, wanted in fields.items():
        found = getattr(existing, field)
        if found != wanted:
            raise AlreadyDefined(
                f"{_label(existing)} `{existing}` is already defined with {field} = {found}, not {wanted}: "
                "choose another name, or change it in the admin pages first."
            )


def create(row: M, action: str, after: dict[str, Any]) -> M:
    """Validate, save and audit a new row; call inside a transaction."""
    validated(row).save()
    audit(action, row, after=after)
    return row


def _label(row: Model) -> str:
    return str(row._meta.verbose_name).capitalize()
