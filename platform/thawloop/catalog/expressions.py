"""Band math over modalities: `(nir.nir - rgb.red) / (nir.nir + rgb.red)`.

An expression is parsed once into a small tree of allowed operations and evaluated on arrays. Nothing of it is ever
given to `eval`: names, numbers, + - * / **, unary minus, and a few functions are all there is.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thawloop.catalog.errors import DefinitionRefused

Array = NDArray[np.float32]
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "sqrt": (1, np.sqrt),
    "log": (1, np.log),
    "exp": (1, np.exp),
    "minimum": (2, np.minimum),
    "maximum": (2, np.maximum),
    "clip": (3, np.clip),
}
_HINT = "Write modality.band names, numbers, + - * / ** and " + ", ".join(f"{name}()" for name in _FUNCTIONS) + "."


@dataclass(frozen=True)
class Expression:
    """A parsed expression. `bands`: the (modality, band) pairs it reads; an empty band means the only one."""

    source: str
    trees: tuple[ast.expr, ...]
    bands: frozenset[tuple[str, str]]

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities it reads."""
        return frozenset(modality for modality, _ in self.bands)

    def evaluate(self, values: Mapping[tuple[str, str], Array]) -> Array:
        """Compute the bands: float32 [len(trees), H, W]; not finite (division by zero, log of a negative) is NaN."""
        shape = next(iter(values.values())).shape
        result = np.empty((len(self.trees), *shape), dtype=np.float32)
        with np.errstate(all="ignore"):
            for band, tree in zip(result, self.trees, strict=True):
                band[...] = _evaluate(tree, values)
        result[~np.isfinite(result)] = np.nan
        return result


@lru_cache(maxsize=256)
def parse_expression(source: str, *, bands: int = 1) -> Expression:
    """Parse an expression; several bands are separated by `;`.

    Raises:
        DefinitionRefused: It is not valid, reads nothing, or gives another number of bands.
    """
    try:
        trees = tuple(ast.parse(part.strip(), mode="eval").body for part in source.split(";"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DefinitionRefused(f"The expression `{source}` cannot be read ({error}). {_HINT}") from error
    if len(trees) != bands:
        raise DefinitionRefused(
            f"The expression `{source}` gives {len(trees)} band(s), but the modality has {bands}: "
            "separate one expression per band with `;`."
        )
    found: set[tuple[str, str]] = set()
    for tree in trees:
        _check(tree, source, found)
    if not found:
        raise DefinitionRefused(f"The expression `{source}` reads no modality. {_HINT}")
    return Expression(source, trees, frozenset(found))


def _check(node: ast.expr, source: str, found: set[tuple[str, str]]) -> None:
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            parts = [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            parts = [operand]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if _takes(name, len(args)):
            parts = args
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if abs(value) > 1e30:
                raise DefinitionRefused(f"The number {value:.3g} in `{source}` is too large for float32 pixels.")
            parts = []
        case ast.Attribute(value=ast.Name(id=modality), attr=band):
            found.add((modality, band))
            parts = []
        case ast.Name(id=modality):
            found.add((modality, ""))
            parts = []
        case _:
            piece = ast.unparse(node)
            raise DefinitionRefused(f"`{piece}` is not allowed in the expression `{source}`. {_HINT}")
    for part in parts:
        _check(part, source, found)


def _takes(name: str, count: int) -> bool:
    return name in _FUNCTIONS and _FUNCTIONS[name][0] == count


def _evaluate(node: ast.expr, values: Mapping[tuple[str, str], Array]) -> Any:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_evaluate(left, values), _evaluate(right, values))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_evaluate(operand, values))
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name][1](*(_evaluate(argument, values) for argument in args))
        case ast.Constant(value=int() | float() as value):
            return np.float32(value)
        case ast.Attribute(value=ast.Name(id=modality), attr=band):
            return values[modality, band]
        case ast.Name(id=modality):
            return values[modality, ""]
    raise TypeError(f"unchecked node {node!r}")
