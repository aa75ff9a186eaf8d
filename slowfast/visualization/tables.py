"""The results of a test as text for the screen, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from slowfast.utils.text import shown
from slowfast.visualization.results import TestReport

WIDTH = 100


def results_table(report: TestReport) -> str:
    """The figures of a test: a line each; accuracy over what was read only where something failed."""
    rows = [
        ("top-1", f"{report.top1:.2f} %"),
        (f"top-{report.k}", f"{report.top5:.2f} %"),
        ("videos", f"{report.videos}"),
        ("views x crops", f"{report.views} x {report.crops}"),
        ("time", f"{report.seconds:.1f} s, {report.clips_per_second:.1f} clips/s"),
        ("peak memory", f"{report.peak_memory_mib:.0f} MiB"),
    ]
    if report.failed:
        rows[0] = ("top-1", f"{report.top1:.2f} % (failed videos count as wrong)")
        rows[2:2] = [
            ("top-1 of those read", f"{report.top1_read:.2f} %"),
            (f"top-{report.k} of those read", f"{report.top5_read:.2f} %"),
        ]
        rows.insert(5, ("failed", f"{report.failed}"))
    if report.macs_saved is not None and report.active_patches is not None:
        active = " ".join(f"{share:.1f}" for share in report.active_patches)
        rows[2:2] = [
            ("multiply-adds saved", f"{report.macs_saved:.1f} %"),
            ("patches computed", f"{active} % of each stage"),
        ]
    if report.views * report.crops > 1:
        rows.insert(2, ("top-1 of one view", f"{report.top1_view:.2f} +- {report.top1_view_std:.2f} %"))
    if report.top1_single is not None and report.views > 1:
        rows[0] = (f"top-1 (average of {report.views} samples)", rows[0][1])
        rows[2] = ("top-1 (single samples, as published)", rows[2][1])
    rows = list(dict(rows).items())  # with a single class top-5 is top-1: said once
    return tabulate(rows, headers=("test", "result"), tablefmt="simple", disable_numparse=True)


def files_table(files: Mapping[str, Path]) -> str:
    """Where each output file is: what it holds -> its path; a path too long for the line loses its beginning."""
    room = WIDTH - 2 - max(map(len, files), default=0)
    rows = [(what, tail(str(path), room)) for what, path in files.items()]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def tail(text: str, room: int) -> str:
    """Prepare a name of any content for a table: safe to show, and only its end if it exceeds `room` characters."""
    text = shown(text)
    return text if len(text) <= room else "..." + text[len(text) - room + 3 :]
