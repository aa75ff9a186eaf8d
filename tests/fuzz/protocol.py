"""What every kind of fuzzed input has in common."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from tests.fuzz.mutate import Mutation

USED, REFUSED = "used", "refused"


class WrongValue(AssertionError):
    """The package accepted a damaged input and returned a wrong result."""


class Kind(Protocol):
    """Inputs of one kind."""

    mutations: ClassVar[tuple[Mutation, ...]]

    def make(self, folder: Path) -> list[Path]:
        """Write the undamaged inputs; the same files every time."""

    def check(self, path: Path, original: Path) -> str:
        """Read a damaged input with the package; return USED or REFUSED.

        Raises:
            WrongValue: If the result is wrong.
            Exception: Anything else is a crash.
        """
