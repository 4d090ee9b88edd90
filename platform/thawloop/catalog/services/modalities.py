"""Defining modalities."""

import math
from typing import Any

from django.db import transaction

from thawloop.catalog.builtin import BUILTIN
from thawloop.catalog.colormaps import colormap_names
from thawloop.catalog.contrast import STRETCHES
from thawloop.catalog.errors import DefinitionRefused
from thawloop.catalog.expressions import parse_expression
from thawloop.catalog.models import Modality
from thawloop.catalog.selectors import measured_inputs
from thawloop.catalog.services.defining import check_identical, create

_TERRAIN = (Modality.Derivation.RELATIVE_ELEVATION, Modality.Derivation.SLOPE, Modality.Derivation.HILLSHADE)
_PARAMETERS: dict[str, dict[str, tuple[float, float]]] = {
    Modality.Derivation.RELATIVE_ELEVATION: {"radius_m": (1.0, 5000.0)},
    Modality.Derivation.HILLSHADE: {"azimuth": (0.0, 360.0), "altitude": (0.0, 90.0), "exaggeration": (0.01, 100.0)},
}


@transaction.atomic
def define_modality(name: str, **fields: Any) -> Modality:
    """Create a modality, or return the one of that name if it is defined exactly so.

    Args:
        name: Lower-case name, e.g. `rgb`.
        **fields: Fields of `Modality`. `source` may be a name. `title` defaults to the name.

    Raises:
        DefinitionRefused: A field is unknown or its value cannot work.
        AlreadyDefined: The name is taken by a modality that differs.
    """
    known = {field.name for field in Modality._meta.get_fields() if field.concrete} - {"id", "name"}
    if unknown := sorted(set(fields) - known):
        raise DefinitionRefused(
            f"Modality `{name}` has no field `{unknown[0]}`; its fields are {', '.join(sorted(known))}."
        )
    fields = {"title": name.replace("_", " ").capitalize(), **fields}
    if isinstance(fields.get("source"), str):
        fields["source"] = _find_modality(fields["source"], name)
    existing = Modality.objects.filter(name=name).first()
    if existing is not None:
        check_identical(existing, fields)
        return existing
    modality = Modality(name=name, **fields)
    _check_derivation(modality)
    after = {**fields, "source": modality.source.name if modality.source else None}
    return create(modality, "catalog.define_modality", after)


def ensure_builtin(name: str, **overrides: Any) -> Modality:
    """The modality of that name: the one already defined, else the built-in of `catalog/builtin.py`, created.

    What a built-in is derived from is ensured too. A modality that leads defined themselves under the name is
    returned as they defined it.

    Args:
        name: A key of `BUILTIN`, or the name of a defined modality.
        **overrides: Fields that differ from the built-in's when it is created, e.g. `range_max=10_000`.

    Raises:
        DefinitionRefused: Neither defined nor built in.
    """
    existing = Modality.objects.filter(name=name).first()
    if existing is not None:
        if overrides:
            check_identical(existing, overrides)
        return existing
    if name not in BUILTIN:
        raise DefinitionRefused(
            f"Modality `{name}` is neither defined nor built in ({', '.join(sorted(BUILTIN))}): define it first."
        )
    spec = {**BUILTIN[name], **overrides}
    with transaction.atomic():
        if spec.get("derivation") == Modality.Derivation.EXPRESSION:
            sources = set(parse_expression(spec["expression"], bands=len(spec["bands"])).modalities)
        else:
            sources = {spec["source"]} if isinstance(spec.get("source"), str) else set()
        for source in sorted(sources):
            ensure_builtin(source)
        return define_modality(name, **spec)


def _find_modality(source: str, wanted_by: str) -> Modality:
    found = Modality.objects.filter(name=source).first()
    if found is None:
        raise DefinitionRefused(f"Modality `{wanted_by}` is derived from `{source}`, which is not defined yet.")
    return found


def _check_derivation(modality: Modality) -> None:
    if not (math.isfinite(modality.range_min or 0.0) and math.isfinite(modality.range_max or 0.0)):
        raise DefinitionRefused(f"The range of modality `{modality.name}` must be two finite numbers.")
    if len(set(modality.bands or [])) != len(modality.bands or []):
        raise DefinitionRefused(f"Modality `{modality.name}` names a band twice: {', '.join(modality.bands)}.")
    if modality.derivation == Modality.Derivation.EXPRESSION:
        _check_expression(modality)
    elif modality.expression:
        raise DefinitionRefused(
            f"Modality `{modality.name}` has an expression, so its derivation must be `expression`."
        )
    if modality.derivation in _TERRAIN:
        _check_terrain(modality)
    _check_parameters(modality)


def _check_expression(modality: Modality) -> None:
    expression = parse_expression(modality.expression, bands=len(modality.bands))
    for name, band in sorted(expression.bands):
        if name == modality.name:
            raise DefinitionRefused(f"Modality `{name}` cannot be computed from itself: `{modality.expression}`.")
        source = _find_modality(name, modality.name)
        if band and band not in source.bands:
            raise DefinitionRefused(
                f"`{name}.{band}` in `{modality.expression}`: the bands of `{name}` are {', '.join(source.bands)}."
            )
        if not band and len(source.bands) > 1:
            raise DefinitionRefused(
                f"`{name}` in `{modality.expression}` has several bands: say which, e.g. `{name}.{source.bands[0]}`."
            )
    try:
        measured_inputs(modality)
    except RecursionError as error:
        raise DefinitionRefused(str(error)) from error


def _check_terrain(modality: Modality) -> None:
    if len(modality.bands) != 1:
        raise DefinitionRefused(f"Modality `{modality.name}` is derived from elevation and has exactly one band.")
    if modality.source is None or len(modality.source.bands) != 1:
        raise DefinitionRefused(f"Modality `{modality.name}` needs a one-band elevation modality as its source.")


def _check_parameters(modality: Modality) -> None:
    if modality.colormap and modality.colormap not in colormap_names():
        raise DefinitionRefused(
            f"Modality `{modality.name}`: there is no colour table `{modality.colormap}`; viridis, magma, terrain, "
            "rdylgn and rdbu are some."
        )
    if not isinstance(modality.parameters or {}, dict):
        raise DefinitionRefused(f"The parameters of modality `{modality.name}` must be named values: {{}} or more.")
    allowed = _PARAMETERS.get(modality.derivation, {})
    for key, value in (modality.parameters or {}).items():
        if key == "stretch":
            if value not in STRETCHES:
                raise DefinitionRefused(f"Modality `{modality.name}`: stretch is one of {', '.join(STRETCHES)}.")
        elif key not in allowed:
            known = ", ".join([*allowed, "stretch"])
            raise DefinitionRefused(f"Modality `{modality.name}` has no parameter `{key}` (it knows {known}).")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not _within(value, allowed[key]):
            low, high = allowed[key]
            raise DefinitionRefused(f"Modality `{modality.name}`: {key} must be a number from {low:g} to {high:g}.")


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
