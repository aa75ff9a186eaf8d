"""Summary of a command that converts the files of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from slowfast.utils.screen import show


class ConversionResult(Protocol):
    """Result of converting the files of a folder."""

    @property
    def done(self) -> int:
        """Number of files converted by this run."""

    @property
    def already_there(self) -> int:
        """Number of files converted by an earlier run."""

    @property
    def damaged(self) -> Mapping[str, str]:
        """Description of the damage of files that were converted in part."""

    @property
    def failed(self) -> Mapping[str, str]:
        """Reason of each failure."""

    @property
    def seconds(self) -> float:
        """Duration of the run."""


def show_conversion(result: ConversionResult, what: str, out: Path) -> None:
    """Print what was converted and what failed.

    Args:
        result: Result of the conversion.
        what: What was done, such as "videos extracted".
        out: Output folder.
    """
    for problem, files in (("damaged, converted up to the damage", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(files.items()):
            show(f"{problem}: {name}: {reason}")
    others = f"{result.already_there} converted before, {len(result.failed)} failed"
    show(f"{result.done} {what} to {out} in {result.seconds:.0f} s, {others}")
