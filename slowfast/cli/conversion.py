"""Summaries of commands that process the files of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.utils.screen import show

if TYPE_CHECKING:
    from slowfast.prepare.jobs import Conversion

_SHOWN = 10  # failures on the screen; a file lists all


def show_failures(failed: Mapping[str, str], file: Path) -> None:
    """Print the first failures and where all are listed.

    Args:
        failed: Reason by name.
        file: List of all failures.
    """
    for name, reason in list(failed.items())[:_SHOWN]:
        show(f"failed: {name}: {reason}")
    if failed:
        show(f"all {len(failed)} failures: {file}")


def show_conversion(result: Conversion, what: str, out: Path) -> None:
    """Print what was converted and what failed.

    Args:
        result: Result of the conversion.
        what: What was done, such as "videos extracted".
        out: Output folder.
    """
    for problem, files in (("damaged, converted up to the damage", result.damaged), ("failed", result.failed)):
        for name, reason in sorted(files.items()):
            show(f"{problem}: {name}: {reason}")
    others = f"{result.skipped} converted before, {len(result.failed)} failed"
    show(f"{result.done} {what} to {out} in {result.seconds:.0f} s, {others}")
