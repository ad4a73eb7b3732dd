"""What a pickled checkpoint may name besides torch's own types: plain data, each as an inert class of ours.

Training scripts keep numbers of NumPy (a loss, a learning rate, the state of a generator), settings and paths beside
the weights. None of the real types is called: a crafted dtype can make NumPy read beyond its memory, and an array of
objects holds whatever its pickle says.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_ONE_AT_A_TIME = threading.Lock()
_MODULES = ("numpy.core", "numpy._core")  # of NumPy 1, and of NumPy 2
_CODE = re.compile(r"[|<>=]?(?:\?|b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,6})")


class NotPlainError(ValueError):
    """A value of NumPy that is more than numbers or text."""


class _Dtype:
    """``numpy.dtype``, of numbers, truth values and texts."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise NotPlainError(f"NumPy data of the type {code!r:.40}")
        self.found = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, *parts = state[1:5]
        if order not in ("|", "<", ">", "=") or any(part is not None for part in parts):
            raise NotPlainError("NumPy data of a type with parts")
        self.found = self.found.newbyteorder(order)


class _Array:
    """``numpy.ndarray``; ``found`` is the array once it is there."""

    found = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise NotPlainError("a NumPy array of objects")
        if len(data) != math.prod(shape) * dtype.found.itemsize:
            raise ValueError("a NumPy array of another length than its shape says")
        self.found = np.frombuffer(data, dtype.found).reshape(shape, order="F" if by_column else "C")


def _array(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        raise NotPlainError("a NumPy array of a class of its own")
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """The Python value of a scalar of NumPy."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise NotPlainError("a NumPy object")
    if len(data) != dtype.found.itemsize:
        raise ValueError("a NumPy scalar of another length than its type says")
    return (np.frombuffer(data, dtype.found)[0] if data else dtype.found.type()).item()


def _no_bytes() -> bytes:
    return b""


class _Mapping:
    """A dictionary of a class of its own becomes a plain one."""

    def __new__(cls, *_: Any) -> Any:
        return {}


class _Plain:
    """What nobody asks for: settings, paths, times, the names of types. It takes any state and does nothing with it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> _Plain:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


_TYPES: dict[Any, tuple[str, ...]] = {
    _Dtype: ("numpy.dtype",),
    _Array: ("numpy.ndarray",),
    _array: tuple(f"{module}.multiarray._reconstruct" for module in _MODULES),
    _scalar: tuple(f"{module}.multiarray.scalar" for module in _MODULES),
    _no_bytes: ("builtins.bytes",),  # how protocol 2 writes b""
    _Mapping: (
        "collections.defaultdict",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    ),
    _Plain: (
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
        *(
            f"{module}.{name}"
            for module in ("pathlib", "pathlib._local")
            for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
        ),
        *(f"numpy.{name}" for name in ("bool_", "bool", "float16", "float32", "float64", "int32", "int64", "uint8")),
    ),
}
_ALLOWED: list[Any] = [(kind, name) for kind, names in _TYPES.items() for name in names]


@contextmanager
def plain_data() -> Iterator[None]:
    """Within it, ``torch.load(weights_only=True)`` takes the types above and torch's own, and no others that this
    process may have allowed elsewhere."""
    from torch import serialization as known

    with _ONE_AT_A_TIME:
        before = known.get_safe_globals()
        known.clear_safe_globals()
        known.add_safe_globals(_ALLOWED)
        try:
            yield
        finally:
            known.clear_safe_globals()
            known.add_safe_globals(before)


def as_tensor(value: Any) -> Any:
    """An array of numbers as a tensor; anything else as it is."""
    if isinstance(value, _Array) and value.found.dtype.kind in "biuf":
        import torch

        native = value.found.astype(value.found.dtype.newbyteorder("="))
        return torch.from_numpy(native)
    return value
