"""Files of a GPU check: results.jsonl (a row per case), errors.txt (tracebacks) and report.txt (tables).

Needs nothing but the standard library and tabulate, so that missing packages and a broken PyTorch can be reported, too.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

RESULTS, ERRORS, REPORT = "results.jsonl", "errors.txt", "report.txt"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
Row = dict[str, Any]
_NOT_SHOWN = ("part", "case", "status", "reason", "text")
# What an H100 or H200 should reach: by case, a value and its least.
GOALS = {
    "K400_MLP_S16x4 train bf16": ("% of bf16 matmul", 50.0),
    "64 streams, float32, 5 %": ("speed-up", 4.0),
    "64 streams, bfloat16, 5 %": ("speed-up", 4.0),
}
_NAMED = 6  # skipped cases that are named; the others are counted


def append_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Append a row to results.jsonl; it is on its way to the disk when this returns."""
    with open(folder / RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(dict(row)) + "\n")


def read_rows(folder: Path, part: str | None = None) -> list[Row]:
    """Return the rows of results.jsonl, of one part or all; a line cut off by a killed process is left out."""
    path = folder / RESULTS
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if part in (None, row["part"])]


def finished_cases(folder: Path, part: str) -> set[str]:
    """Return the names of the cases of a part that have a row."""
    return {row["case"] for row in read_rows(folder, part)}


def add_error(folder: Path, part: str, case: str, text: str) -> None:
    """Append a traceback, or the output of a process that crashed, to errors.txt."""
    with open(folder / ERRORS, "a", encoding="utf-8") as file:
        file.write(f"==== {part}: {case}\n{text.rstrip()}\n\n")


def add_to_report(folder: Path, text: str) -> None:
    """Append text to report.txt and print it."""
    with open(folder / REPORT, "a", encoding="utf-8") as file:
        file.write(text + "\n")
    print(text, flush=True)


def part_report(title: str, rows: Sequence[Row], seconds: float, with_table: bool = True) -> str:
    """Return the section of a part: a table of the cases that are done, then what failed and what was skipped.

    Args:
        title: Heading.
        rows: Rows of the part.
        seconds: Duration of the part.
        with_table: Whether the cases that are done are listed; they are always counted.
    """
    counts = Counter(row["status"] for row in rows)
    summary = ", ".join(f"{counts[status]} {status}" for status in (DONE, FAILED, SKIPPED) if counts[status])
    lines = [f"\n{title} ({summary or 'nothing ran'}; {seconds:.0f} s)"]
    done = [row for row in rows if row["status"] == DONE]
    if with_table and done:
        lines.append(results_table(done))
    lines += [f"\n{row['case']}\n{row['text']}" for row in done if "text" in row]
    lines += [_verdict(row) for row in done if row["case"] in GOALS]
    lines += [f"  failed: {row['case']}: {row['reason']}" for row in rows if row["status"] == FAILED]
    return "\n".join(lines + _skipped_lines(rows))


def _verdict(row: Row) -> str:
    value, least = GOALS[row["case"]]
    verdict = "met" if row[value] >= least else "NOT MET"
    return f"  goal: {row['case']}: {value} at least {least:g}, measured {_cell(row[value])}: {verdict}"


def _skipped_lines(rows: Sequence[Row]) -> list[str]:
    """Return a line for each reason, with the cases skipped for it."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] == SKIPPED:
            by_reason[row["reason"]].append(row["case"])
    lines = []
    for reason, cases in by_reason.items():
        more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
        lines.append(f"  skipped ({reason}): {'; '.join(cases[:_NAMED])}{more}")
    return lines


def results_table(rows: Sequence[Row]) -> str:
    """Return a table with a line per row and a column for every value that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in _NOT_SHOWN))
    cells = [[row["case"], *(_cell(row.get(column)) for column in columns)] for row in rows]
    aligned = ("left", *("right" for _ in columns))
    return tabulate(cells, ("case", *columns), tablefmt="simple", disable_numparse=True, colalign=aligned)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
