"""Tables for the terminal, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from slowfast.utils.text import sanitize
from slowfast.visualization.results import TestReport

WIDTH = 100


def results_table(report: TestReport) -> str:
    """Return the results of a test, one per line."""
    rows = [*report.results.rows, *report.extra.rows, ("videos", f"{report.videos}")]
    if report.failed:
        rows.append(("failed", f"{report.failed}"))
    rows += [
        ("views x crops", f"{report.views} x {report.crops}"),
        ("time", f"{report.seconds:.1f} s, {report.clips_per_second:.1f} clips/s"),
        ("peak memory", f"{report.peak_memory_mib:.0f} MiB"),
    ]
    return tabulate(rows, headers=("test", "result"), tablefmt="simple", disable_numparse=True)


def files_table(files: Mapping[str, Path]) -> str:
    """Return the descriptions and paths of output files; a path that is too long is cut at its start."""
    length = WIDTH - 2 - max(map(len, files), default=0)
    rows = [(what, tail(str(path), length)) for what, path in files.items()]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def tail(text: str, length: int) -> str:
    """Prepare a name for a table: printable, and only its end if it exceeds `length` characters."""
    text = sanitize(text)
    return text if len(text) <= length else "..." + text[len(text) - length + 3 :]
