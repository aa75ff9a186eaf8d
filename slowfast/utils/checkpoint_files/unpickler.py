"""Unpickler that only builds plain data and never imports, looks up or calls anything named in a file.

A name in a pickle becomes an inert :class:`~.inert.GlobalName`. Only the constructors of :mod:`.values` and, inside
PyTorch files, of :mod:`.pytorch` are called, each with checked arguments:

============================================  ====================================================================
content of the file                           result
============================================  ====================================================================
None, bool, numbers, str, bytes, list, ...    unchanged
OrderedDict, defaultdict, Counter, deque,     OrderedDict, dict, Counter, list, set, frozenset, bytearray, complex,
set, frozenset, bytearray, complex, range     range
NumPy scalars, dtypes and arrays              the same; arrays of Python objects become lists
Tensors, Parameters, torch.Size, dtype,       the same on the CPU, Parameters as plain tensors
device
argparse.Namespace, types.SimpleNamespace     the same, attributes only
paths of pathlib                              PurePosixPath, PureWindowsPath
date, time, datetime, timedelta, timezone     the same
objects of other packages' classes (pickled   :class:`InertObject`: class name, arguments, items and state
as objects, or as calls of capitalized names)
names of such classes and functions           :class:`GlobalName`
calls of any other function; other names of   refused
the standard library
============================================  ====================================================================
"""

from __future__ import annotations

import itertools
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from slowfast.utils.checkpoint_files.inert import (
    STANDARD_LIBRARY,
    GlobalName,
    InertObject,
    MalformedPickle,
    RefusedPickle,
    checked_key,
)

MAX_OPCODES = 20_000_000  # more than any real checkpoint has; bounds memory and time


Constructor = Callable[..., Any]
SetState = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Vocabulary:
    """Names that a file format may use.

    Args:
        constants: Values by name.
        constructors: Functions of this package that replace the named ones.
        set_state: Function that applies a pickled state and returns the resulting object, by object type.
    """

    constants: dict[str, Any]
    constructors: dict[str, Constructor]
    set_state: dict[type, SetState]


class Unpickler:
    """Pickle machine on opcodes decoded by :mod:`pickletools`.

    Args:
        file: Binary file positioned at the start of the pickle; afterwards at its end.
        vocabulary: Allowed names.
        size: Upper bound of the pickle size in bytes; constructors never copy more than that in total.
        persistent_load: Resolves persistent IDs (tensor storages).
    """

    def __init__(
        self, file: BinaryIO, vocabulary: Vocabulary, size: int, persistent_load: Callable[[Any], Any] | None = None
    ) -> None:
        self._file, self._words, self._budget = file, vocabulary, size + 1024
        self._persistent_load = persistent_load
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the pickled object.

        Raises:
            RefusedPickle: If it refers to anything outside the vocabulary.
            Exception: Of nearly any type if the pickle is malformed.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._file)):
            name = opcode.name
            if name == "STOP":
                (value,) = self._stack
                return value
            if count > MAX_OPCODES:
                raise MalformedPickle(f"more than {MAX_OPCODES} operations")
            if name in _PUSHED:
                self._stack.append(argument)
            elif name in _NEW:
                self._stack.append(_NEW[name]())
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            elif name not in _IGNORED:
                raise MalformedPickle(f"unsupported operation {name}")
        raise MalformedPickle("the pickle does not end")

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise MalformedPickle("stack underflow")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop_one(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _discard_to_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, size: int | None) -> None:
        items = self._pop_to_mark() if size is None else [self._pop() for _ in range(size)][::-1]
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(checked_key(item) for item in self._pop_to_mark()))

    def _dict(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._set_items(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, InertObject):
            target.elements.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise MalformedPickle(f"append to a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise MalformedPickle(f"item assignment to a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _add_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        target = self._stack[-1]
        if type(target) is not set:
            raise MalformedPickle(f"addition to a {type(target).__name__}")
        target.update(checked_key(item) for item in items)

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(module, str) and isinstance(name, str)):
            raise MalformedPickle("a name is not a string")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        # Names of Python 2, which protocol 2 and below use
        found = GlobalName(*NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
        words = self._words
        if str(found) in words.constants:
            self._stack.append(words.constants[str(found)])
            return
        if str(found) not in words.constructors and found.package in STANDARD_LIBRARY:
            raise RefusedPickle(str(found))
        self._stack.append(found)

    def _reduce(self, _: Any) -> None:
        args, function = self._pop(), self._pop()
        if not (isinstance(function, GlobalName) and type(args) is tuple):
            raise RefusedPickle(f"a call of a {type(function).__name__}")
        self._stack.append(self._construct(function, args, may_be_function=True))

    def _new_object(self, _: Any) -> None:
        args, cls = self._pop(), self._pop()
        if not (isinstance(cls, GlobalName) and type(args) is tuple):
            raise RefusedPickle(f"an object of a {type(cls).__name__}")
        self._stack.append(self._construct(cls, args, may_be_function=False))

    def _new_object_with_keywords(self, _: Any) -> None:
        self._pop()  # the keywords
        self._new_object(None)

    def _construct(self, name: GlobalName, args: tuple[Any, ...], may_be_function: bool) -> Any:
        """Call the constructor of a name, or build an inert object if it names a class of another package."""
        constructor = self._words.constructors.get(str(name))
        if constructor is not None:
            self._budget -= sum(len(arg) for arg in args if isinstance(arg, (str, bytes, list, tuple, dict, set)))
            if self._budget < 0:
                raise MalformedPickle("repeated copies of large values")
            return constructor(*args)
        trusted = name.package not in ("torch", "numpy") and name.looks_like_a_class
        if name.package in STANDARD_LIBRARY or (may_be_function and not trusted):
            raise RefusedPickle(str(name))
        return InertObject(str(name), args)

    def _build(self, _: Any) -> None:
        state = self._pop()
        target = self._pop()
        setter = self._words.set_state.get(type(target))
        if setter is None:
            raise RefusedPickle(f"a state for a {type(target).__name__}")
        changed = setter(target, state)
        if changed is not target:  # immutable: replace its memo entry, one of the last
            for index, value in list(itertools.islice(reversed(self._memo.items()), 16)):
                if value is target:
                    self._memo[index] = changed
        self._stack.append(changed)

    def _persistent(self, identity: Any) -> None:
        if self._persistent_load is None:
            raise RefusedPickle("external data")
        self._stack.append(self._persistent_load(identity))


def _one_pair(machine: Unpickler, _: Any) -> None:
    value, key = machine._pop(), machine._pop()
    machine._set_items([key, value])


_IGNORED = frozenset({"PROTO", "FRAME"})
_PUSHED = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE"
    " SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_OPERATIONS: dict[str, Callable[[Unpickler, Any], None]] = {
    "MARK": Unpickler._mark,
    "POP": Unpickler._pop_one,
    "POP_MARK": Unpickler._discard_to_mark,
    "DUP": Unpickler._duplicate,
    "PUT": Unpickler._put,
    "BINPUT": Unpickler._put,
    "LONG_BINPUT": Unpickler._put,
    "MEMOIZE": Unpickler._put,
    "GET": Unpickler._get,
    "BINGET": Unpickler._get,
    "LONG_BINGET": Unpickler._get,
    "TUPLE": Unpickler._tuple,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": Unpickler._list,
    "DICT": Unpickler._dict,
    "FROZENSET": Unpickler._frozenset,
    "APPEND": lambda machine, _: machine._append([machine._pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._pop_to_mark()),
    "SETITEM": _one_pair,
    "SETITEMS": lambda machine, _: machine._set_items(machine._pop_to_mark()),
    "ADDITEMS": Unpickler._add_items,
    "GLOBAL": Unpickler._global,
    "STACK_GLOBAL": Unpickler._stack_global,
    "REDUCE": Unpickler._reduce,
    "NEWOBJ": Unpickler._new_object,
    "NEWOBJ_EX": Unpickler._new_object_with_keywords,
    "BUILD": Unpickler._build,
    "PERSID": Unpickler._persistent,
    "BINPERSID": lambda machine, _: machine._persistent(machine._pop()),
}
