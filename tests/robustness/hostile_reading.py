"""Runner of a tool with a decoder that fails, dies or hangs on files with certain names.

Usage: hostile_reading.py TOOL ARGUMENTS... Processes that are spawned import this file, too: they get the same decoder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import cv2

import slowfast.prepare.jobs
from slowfast.datasets.decode.pyav import PyAVReader

LIMIT = 4  # seconds for a file


def _raise(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def _hang() -> None:
    """Sleep in C while holding the GIL; only SIGKILL can end it."""
    libc = ctypes.PyDLL(None)
    while True:
        libc.sleep(600)


ERRORS: dict[str, Callable[[], object]] = {
    "MemoryError": _raise(MemoryError()),
    "RecursionError": _raise(RecursionError("maximum recursion depth exceeded")),
    "UnicodeDecodeError": _raise(UnicodeDecodeError("utf-8", b"caf\xe9", 3, 4, "unexpected end of data")),
    "ValueError": _raise(ValueError("could not broadcast input array\nfrom shape (120,160,3) into shape (160,120,3)")),
    "input/output error": _raise(OSError(5, "Input/output error")),
    "OpenCV": _raise(cv2.error("(-215:Assertion failed)")),
    "AssertionError": _raise(AssertionError()),
}
LOSSES: dict[str, Callable[[], object]] = {
    "was killed by SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "was killed by SIGBUS": lambda: os.kill(os.getpid(), signal.SIGBUS),
    "was killed by SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exited with status 9": lambda: os._exit(9),
    f"{LIMIT} s": _hang,
}
FATAL: dict[str, Callable[[], object]] = {
    "SystemExit": _raise(SystemExit(0)),
    "GeneratorExit": _raise(GeneratorExit()),
}
# Prefixes of the names of hostile files, and what reading them does.
DEEDS = {f"hostile{number:02d}": deed for number, deed in enumerate([*ERRORS.values(), *LOSSES.values()])}
DEEDS |= {f"fatal{number:02d}": deed for number, deed in enumerate(FATAL.values())}
REASONS = dict(zip(DEEDS, [*ERRORS, *LOSSES], strict=False))

_open = PyAVReader.__init__


def _hostile_open(self: PyAVReader, path: Path, *args: object, **options: object) -> None:
    deed = DEEDS.get(Path(path).stem)
    if deed is not None:
        deed()
    _open(self, path, *args, **options)  # type: ignore[arg-type]


if __name__ in ("__main__", "__mp_main__"):  # not in tests that import names
    PyAVReader.__init__ = _hostile_open  # type: ignore[assignment, method-assign]
    slowfast.prepare.jobs.STALL_LIMIT = LIMIT

if __name__ == "__main__":
    tool = Path(__file__).parents[2] / "tools" / f"{sys.argv.pop(1)}.py"
    exec(compile(tool.read_text(), tool, "exec"), {"__name__": "__main__", "__file__": str(tool)})
