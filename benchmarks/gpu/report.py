"""Files of the GPU check: results.jsonl (one row per case), errors.txt (tracebacks) and report.txt (tables).

Imports only the standard library and tabulate, so that missing packages and a broken PyTorch can be reported.
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
# Goals for an H100 or H200: by case, a value and its minimum.
GOALS = {
    "K400_MLP_S16x4 train bf16": ("% of bf16 matmul", 50.0),
    "64 streams, float32, 5 %": ("speed-up", 4.0),
    "64 streams, bfloat16, 5 %": ("speed-up", 4.0),
}
_MAX_NAMED = 6  # skipped cases listed by name; the others are counted


def append_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Append a row to results.jsonl."""
    with open(folder / RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(dict(row)) + "\n")


def read_rows(folder: Path, part: str | None = None) -> list[Row]:
    """Return the rows of one part, or of all parts; lines cut off by a killed process are dropped."""
    path = folder / RESULTS
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if part in (None, row["part"])]


def finished_cases(folder: Path, part: str) -> set[str]:
    """Return the names of the finished cases of a part."""
    return {row["case"] for row in read_rows(folder, part)}


def add_error(folder: Path, part: str, case: str, text: str) -> None:
    """Append a traceback, or the output of a crashed process, to errors.txt."""
    with open(folder / ERRORS, "a", encoding="utf-8") as file:
        file.write(f"==== {part}: {case}\n{text.rstrip()}\n\n")


def add_to_report(folder: Path, text: str) -> None:
    """Append text to report.txt and print it."""
    with open(folder / REPORT, "a", encoding="utf-8") as file:
        file.write(text + "\n")
    print(text, flush=True)


def part_report(title: str, rows: Sequence[Row], seconds: float, with_table: bool = True) -> str:
    """Return the section of a part: a table of finished cases, then failed and skipped ones.

    Args:
        title: Heading.
        rows: Rows of the part.
        seconds: Duration of the part.
        with_table: List the finished cases; they are always counted.
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
    value, minimum = GOALS[row["case"]]
    verdict = "met" if row[value] >= minimum else "NOT MET"
    return f"  goal: {row['case']}: {value} at least {minimum:g}, measured {_cell(row[value])}: {verdict}"


def _skipped_lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per reason, with the cases skipped for it."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] == SKIPPED:
            by_reason[row["reason"]].append(row["case"])
    lines = []
    for reason, cases in by_reason.items():
        more = f" and {len(cases) - _MAX_NAMED} more" if len(cases) > _MAX_NAMED else ""
        lines.append(f"  skipped ({reason}): {'; '.join(cases[:_MAX_NAMED])}{more}")
    return lines


def results_table(rows: Sequence[Row]) -> str:
    """Return a table with one line per row and one column per value."""
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
