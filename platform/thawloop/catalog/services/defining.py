"""Named rows are defined once: defining the same again is fine, defining something else under the name is refused."""

from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Model

from thawloop.catalog.errors import AlreadyDefined, DefinitionRefused
from thawloop.core.services import audit

M = TypeVar("M", bound=Model)

# Fields of each model that may still change once a row is defined.
AMENDABLE: dict[str, tuple[str, ...]] = {
    "modality": ("title", "colormap"),
    "region": ("title",),
    "scene": ("provider", "licence"),
    "tilegrid": (),
    "tile": (),
}


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


@transaction.atomic
def amend(row: M, values: dict[str, Any]) -> M:
    """Change how a defined row is worded or shown (title, colour table, provider); what it is stays fixed.

    Raises:
        DefinitionRefused: A field may not change, or a value cannot work.
    """
    allowed = AMENDABLE[row._meta.model_name or ""]
    if fixed := sorted(set(values) - set(allowed)):
        may = ", ".join(allowed) or "nothing"
        raise DefinitionRefused(f"{_label(row)} `{row}`: {fixed[0]} is fixed once defined; only {may} may change.")
    stored = type(row)._default_manager.select_for_update().get(pk=row.pk)
    before = {name: getattr(stored, name) for name in values}
    for name, value in values.items():
        setattr(stored, name, value)
    validated(stored).save(update_fields=list(values))
    if values != before:
        audit(f"catalog.amend_{row._meta.model_name}", stored, before=before, after=values)
    return stored


def _label(row: Model) -> str:
    return str(row._meta.verbose_name).capitalize()
