"""Reading numpy arrays from untrusted pickles without executing code; detectron2 publishes weights as such files.

Python's unpickler calls whatever a file names. This one accepts only the names of numpy's arrays, dtypes and scalars,
which it replaces by functions of its own, and only the operations that build numbers, text, lists, tuples and
dictionaries. The declared shape of an array must match its number of bytes, and text is encoded only once, however
often a file refers to it, so memory stays within a multiple of the file's size.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

OPERATIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "BINBYTES8 BYTEARRAY8 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD"
)
NUMBERS = re.compile(r"[<>|=]?[fiub][1248]")  # dtypes of numbers, as numpy writes them


def read_arrays(file: Path) -> Any:
    """The content of a pickle: dictionaries, lists, text and numbers, with arrays as :class:`numpy.ndarray`.

    Raises:
        pickle.UnpicklingError: it holds something else, or is damaged.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        try:
            return _plain(_Reader(stream, encoding="latin1").load())
        except KeyError as error:
            raise pickle.UnpicklingError(f"unknown operation {error}") from None
        except (EOFError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise pickle.UnpicklingError(str(error) or type(error).__name__) from None
        except MemoryError:
            raise pickle.UnpicklingError("it declares more data than fits into memory") from None
        finally:
            _bytes_of.cache_clear()


class _Dtype:
    """A numeric dtype, while it is being read."""

    def __init__(self, text: str, *_: Any) -> None:
        if not isinstance(text, str) or not NUMBERS.fullmatch(text):
            raise pickle.UnpicklingError(f"values of type {text!r}")
        self.dtype = np.dtype(text)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in "<>|=" or any(state[2:5]):
            raise pickle.UnpicklingError("values of an unknown type")
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array, while it is being read."""

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] = np.zeros(0)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _values(data, dtype, shape, "F" if fortran else "C")


def _values(data: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    raw = _bytes_of(data) if isinstance(data, str) else data  # text: bytes written by Python 2
    valid = isinstance(raw, bytes | bytearray) and isinstance(dtype, _Dtype) and isinstance(shape, tuple)
    if not valid or not all(type(side) is int and side >= 0 for side in shape) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array of values other than numbers")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise pickle.UnpicklingError(f"an array of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _array(*_: Any) -> _Array:
    """For numpy's ``_reconstruct``: an empty array, whose values are set by BUILD."""
    return _Array()


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """For numpy's ``_frombuffer``."""
    made = _Array()
    made.values = _values(data, dtype, shape, order)
    return made


def _scalar(dtype: Any, data: Any) -> Any:
    """For numpy's ``scalar``: a plain number."""
    return _values(data, dtype, (), "C").item()


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """For ``_codecs.encode``, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in an unknown encoding")
    return _bytes_of(text)


@cache
def _bytes_of(text: str) -> bytes:
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """For ``bytes``, by which protocol 2 writes empty ones."""
    return b""


def _dictionary() -> dict[Any, Any]:
    """For ``collections.OrderedDict``."""
    return {}


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_from_buffer,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): _dictionary,
}


class _Reader(pickle._Unpickler):  # the Python implementation, whose operations can be restricted
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        known = NAMES.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise pickle.UnpicklingError(f"a Python object ({module}.{name})")
        return known

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Array | _Dtype):
            raise pickle.UnpicklingError("an object with a state")
        made.set_state(state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        self._put(self.pop_mark())

    def load_dict(self) -> None:
        pairs = self.pop_mark()
        self.append({})
        self._put(pairs)

    def _put(self, pairs: list[Any]) -> None:
        into = self.stack[-1]
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int) or not isinstance(into, dict):
                raise pickle.UnpicklingError("a dictionary with keys other than names")
            into[key] = value

    dispatch: ClassVar[dict[int, Any]] = {
        **{
            getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
            for name in OPERATIONS.split()
        },
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
    }


def _plain(value: Any, depth: int = 0) -> Any:
    """Replace :class:`_Array` by its values, in dictionaries up to three levels deep, where weights are stored."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict) and depth < 3:
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    return value
