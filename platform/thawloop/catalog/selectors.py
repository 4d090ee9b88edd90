"""The catalog's queries."""

import hashlib
from datetime import date

from django.db.models import QuerySet

from thawloop.catalog.expressions import parse_expression
from thawloop.catalog.models import Modality, Scene
from thawloop.catalog.stamps import stamp_of

_DEEPEST_DERIVATION = 5


def measured_inputs(modality: Modality) -> list[Modality]:
    """The measured modalities a modality is computed from (itself, if it is measured), each once, by name.

    Raises:
        Modality.DoesNotExist: An expression names a modality that is not defined.
        RecursionError: Derivations form a circle, which the services refuse to define.
    """
    return sorted(_measured(modality, _DEEPEST_DERIVATION), key=lambda found: found.name)


def _measured(modality: Modality, depth: int) -> set[Modality]:
    if not modality.is_derived:
        return {modality}
    if depth == 0:
        raise RecursionError(f"Modality `{modality.name}` is derived through more than {_DEEPEST_DERIVATION} others.")
    return set().union(*(_measured(source, depth - 1) for source in direct_inputs(modality)))


def direct_inputs(modality: Modality) -> list[Modality]:
    """The modalities a derived modality is computed from in one step; none for a measured one."""
    if modality.derivation == Modality.Derivation.EXPRESSION:
        names = parse_expression(modality.expression, bands=len(modality.bands)).modalities
        return [Modality.objects.get(name=name) for name in sorted(names)]
    return [modality.source] if modality.source is not None else []


def scenes_of_period(modality: Modality, start: date, end: date) -> QuerySet[Scene]:
    """The scenes that serve a period: those acquired in it, or all of a static modality."""
    scenes = Scene.objects.filter(modality=modality)
    return scenes if modality.is_static else scenes.filter(acquired__range=(start, end))


# Fields of a scene that its pixels do not depend on.
_BESIDE_PIXELS = ("id", "provider", "licence", "created", "footprint", "crs")


def scene_state(scene: Scene) -> str:
    """Differs when a scene's pixels may: how its file is read, and the file itself, as far as `stamp_of` tells."""
    fields = [field.attname for field in Scene._meta.concrete_fields if field.name not in _BESIDE_PIXELS]
    said = [scene.pk, *(getattr(scene, name) for name in fields), stamp_of(scene.uri)]
    return hashlib.sha256(repr(said).encode()).hexdigest()
