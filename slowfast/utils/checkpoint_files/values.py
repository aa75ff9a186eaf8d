"""Constructors of plain Python and NumPy values for the restricted unpickler.

Each replaces a function named in a pickle; it checks the arguments and only builds a value.
"""

from __future__ import annotations

import argparse
import datetime
import re
import types
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from slowfast.utils.checkpoint_files.inert import (
    STANDARD_LIBRARY,
    GlobalName,
    InertObject,
    MalformedPickle,
    RefusedPickle,
    checked_key,
)
from slowfast.utils.checkpoint_files.unpickler import Constructor, SetState, Vocabulary

_DTYPE_CODE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,9}|O8?)")
# Types to which other values refer, such as the default factory of a defaultdict.
_TYPE_NAMES = "bool int float complex str bytes bytearray list tuple dict set frozenset object type NoneType"


@dataclass(frozen=True)
class _PickledDtype:
    """NumPy dtype before its byte order is applied, which pickles store as a separate state."""

    code: str


class _PickledArray:
    """Empty array that NumPy pickles before the content."""


def plain_vocabulary() -> Vocabulary:
    """Return the vocabulary of plain Python and NumPy values."""
    constants = {f"builtins.{name}": GlobalName("builtins", name) for name in _TYPE_NAMES.split()}
    constants |= {name: GlobalName(*name.rsplit(".", 1)) for name in ("typing.Any", "types.NoneType")}
    return Vocabulary(constants, {**_python_constructors(), **_numpy_constructors()}, dict(_SET_STATE))


def _python_constructors() -> dict[str, Constructor]:
    times = (datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone)
    paths: dict[str, type[PurePosixPath] | type[PureWindowsPath]]
    paths = {"Posix": PurePosixPath, "Windows": PureWindowsPath}
    return {
        "collections.OrderedDict": _ordered_dict,
        "collections.defaultdict": _default_dict,
        "collections.Counter": _counter,
        "collections.deque": _deque,
        "builtins.set": _set,
        "builtins.frozenset": lambda items=(): frozenset(_set(items)),
        "builtins.bytearray": lambda *args: bytearray(_bytes(*args)),
        "builtins.bytes": lambda *args: bytes(_bytes(*args)),
        "builtins.complex": _complex,
        "builtins.range": _range,
        "builtins.tuple": _tuple,
        "_codecs.encode": _bytes,
        "copyreg._reconstructor": _reconstructed,
        "argparse.Namespace": argparse.Namespace,
        "types.SimpleNamespace": types.SimpleNamespace,
        "uuid.UUID": lambda: InertObject("uuid.UUID"),
        **{f"datetime.{kind.__name__}": _time(kind) for kind in times},
        **{
            f"{module}.{pure}{system}Path": _path(kind)
            for module in ("pathlib", "pathlib._local")
            for pure in ("", "Pure")
            for system, kind in paths.items()
        },
    }


def _numpy_constructors() -> dict[str, Constructor]:
    constructors: dict[str, Constructor] = {"numpy.dtype": _dtype}
    for core in ("numpy.core", "numpy._core"):
        constructors[f"{core}.multiarray.scalar"] = _scalar
        constructors[f"{core}.multiarray._reconstruct"] = lambda kind, shape, code: _PickledArray()
        constructors[f"{core}.numeric._frombuffer"] = _array_from_buffer
    return constructors


def _pairs(items: Any) -> list[tuple[Any, Any]]:
    """Return checked (key, value) pairs of a dict or of a list of pairs."""
    pairs = list(items.items()) if isinstance(items, dict) else items
    if not (isinstance(pairs, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs)):
        raise MalformedPickle("a dict is not built from pairs")
    return [(checked_key(key), value) for key, value in pairs]


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(_pairs(items))


def _default_dict(factory: Any = None, items: Any = ()) -> dict[Any, Any]:
    return dict(_pairs(items))


def _counter(items: Any = ()) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    for key, value in _pairs(items):
        counter[key] = value
    return counter


def _deque(items: Any = (), maxlen: Any = None) -> list[Any]:
    return list(_sequence(items))


def _set(items: Any = ()) -> set[Any]:
    return {checked_key(item) for item in _sequence(items)}


def _sequence(items: Any) -> list[Any] | tuple[Any, ...] | set[Any]:
    if not isinstance(items, (list, tuple, set)):
        raise MalformedPickle(f"a collection is built from a {type(items).__name__}")
    return items


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    """Return a tuple: Paddle pickles a tensor of a nested dict as tuple((name, array))."""
    return tuple(_sequence(items))


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """Return bytes, which pickle protocol 2 stores as a string."""
    if isinstance(content, str) and encoding in ("latin1", "latin-1"):
        return content.encode("latin-1")
    if not isinstance(content, (bytes, bytearray)):
        raise MalformedPickle(f"bytes are built from a {type(content).__name__}")
    return bytes(content)


def _complex(real: Any, imaginary: Any = 0.0) -> complex:
    return complex(_number(real), _number(imaginary))


def _range(start: Any, stop: Any, step: Any) -> range:
    return range(_integer(start), _integer(stop), _integer(step))


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise MalformedPickle(f"a number is a {type(value).__name__}")
    return float(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise MalformedPickle(f"an integer is a {type(value).__name__}")
    return value


def _reconstructed(cls: Any, base: Any, state: Any) -> InertObject | argparse.Namespace:
    """Return the object of copyreg._reconstructor, which protocols 0 and 1 use instead of NEWOBJ."""
    if not isinstance(cls, GlobalName):
        raise MalformedPickle("an object has no class")
    if str(cls) == "argparse.Namespace":
        return argparse.Namespace()
    if cls.package in STANDARD_LIBRARY:
        raise RefusedPickle(str(cls))
    made = InertObject(str(cls))
    if isinstance(state, dict):
        made.update(_pairs(state))
    return made


def _path(kind: type[PurePosixPath] | type[PureWindowsPath]) -> Constructor:
    def build(*parts: Any) -> PurePosixPath | PureWindowsPath:
        if not all(isinstance(part, str) for part in parts):
            raise MalformedPickle("a path is not a string")
        return kind(*parts)

    return build


def _time(kind: Callable[..., Any]) -> Constructor:
    """Return a constructor of dates and times, of numbers, packed bytes, time zones or time differences."""

    def build(*args: Any) -> Any:
        allowed = (int, float, bytes, str, datetime.timedelta, datetime.timezone)
        if not all(isinstance(arg, allowed) for arg in args):
            raise MalformedPickle("a time is not built from numbers")
        return kind(*args)

    return build


def _dtype(code: Any, *flags: Any) -> _PickledDtype:
    if not (isinstance(code, str) and _DTYPE_CODE.fullmatch(code)):
        raise MalformedPickle(f"an array has the unsupported dtype {code!s:.40}")
    return _PickledDtype(code)


def _resolved(dtype: Any) -> np.dtype:
    """Return the NumPy dtype, with native byte order if none was set."""
    if isinstance(dtype, _PickledDtype):
        return np.dtype(dtype.code)
    if not isinstance(dtype, np.dtype):
        raise MalformedPickle("an array has no dtype")
    return dtype


def _set_dtype_state(dtype: _PickledDtype, state: Any) -> np.dtype:
    """Apply the byte order from a state (version, order, ...); only structured dtypes have further fields."""
    if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")):
        raise MalformedPickle("a dtype has no byte order")
    if any(part is not None for part in state[2:5]):
        raise MalformedPickle("structured arrays are not supported")
    plain = np.dtype(dtype.code)
    ordered = plain if plain.kind == "O" else plain.newbyteorder(state[1])
    return plain if ordered == plain else ordered


def _scalar(dtype: Any, data: Any) -> Any:
    """Return the NumPy scalar of packed bytes."""
    kind = _resolved(dtype)
    data = _bytes(data)
    if kind.hasobject or len(data) != kind.itemsize or not kind.itemsize:
        raise MalformedPickle("the size of a NumPy scalar does not match its dtype")
    return np.frombuffer(data, kind)[0]


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Return an array as stored by pickle protocol 5."""
    return _array(data, dtype, shape, order == "F")


def _set_array_state(shell: _PickledArray, state: Any) -> Any:
    """Return the array of a state (version, shape, dtype, Fortran order, data); a nested list for object arrays."""
    if not (isinstance(state, tuple) and len(state) in (4, 5)):
        raise MalformedPickle("an array has no content")
    shape, dtype, fortran, data = state[-4:]
    return _array(data, dtype, shape, bool(fortran))


def _array(data: Any, dtype: Any, shape: Any, fortran: bool) -> Any:
    kind = _resolved(dtype)
    sizes = (shape,) if isinstance(shape, int) else shape
    if not (isinstance(sizes, tuple) and len(sizes) <= 32 and all(type(n) is int and n >= 0 for n in sizes)):
        raise MalformedPickle("an array has an invalid shape")
    if kind.hasobject:
        return list(_sequence(data))
    data = _bytes(data) if isinstance(data, str) else data
    count = 1
    for size in sizes:
        count *= size
    if not isinstance(data, (bytes, bytearray)) or len(data) != count * kind.itemsize:
        raise MalformedPickle("the size of an array does not match its shape")
    if not kind.itemsize:
        return np.zeros(sizes, kind) if count < 2**20 else None
    return np.frombuffer(data, kind).reshape(sizes, order="F" if fortran else "C")


def _set_ordered_dict_state(target: OrderedDict[Any, Any], state: Any) -> OrderedDict[Any, Any]:
    """Keep the module versions that PyTorch attaches to state dicts; drop other attributes."""
    metadata = state.get("_metadata") if isinstance(state, dict) else None
    if isinstance(metadata, dict):
        target._metadata = metadata  # type: ignore[attr-defined]
    return target


def _set_attributes(target: argparse.Namespace | types.SimpleNamespace, state: Any) -> Any:
    if not (isinstance(state, dict) and all(isinstance(name, str) for name in state)):
        raise MalformedPickle("the attributes of a namespace have no names")
    vars(target).update(state)
    return target


def _set_inert_state(target: InertObject, state: Any) -> InertObject:
    target.state = state
    return target


_SET_STATE: dict[type, SetState] = {
    OrderedDict: _set_ordered_dict_state,
    argparse.Namespace: _set_attributes,
    types.SimpleNamespace: _set_attributes,
    InertObject: _set_inert_state,
    _PickledDtype: _set_dtype_state,
    _PickledArray: _set_array_state,
}
