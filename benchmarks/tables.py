"""Tables of docs/BENCHMARKS.md with machines side by side, from the result files of machines.

`python tools/benchmark.py tables` prints them, `--write docs/BENCHMARKS.md` replaces those of the page: what stands
between `<!-- table: NAME -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, Figures, Machine, Number, read_machine
from benchmarks.topics import TOPICS, Row, Topic
from slowfast.cli.command import CommandParser, exit_status
from slowfast.errors import UserError
from slowfast.utils.files import atomic_write_text
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import plain

MEASURED = ROOT / "docs" / "benchmarks"  # results of the machines measured so far
MACHINES = "machines"  # the table that describes them
EXAMPLE = "python tools/benchmark.py tables --write docs/BENCHMARKS.md"
DESCRIPTION = f"""\
Print Markdown tables with machines side by side.

  {EXAMPLE}
"""
_TABLE = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_FIGURE = re.compile(r"\{([^}]+)\}")
_UNKNOWN = "-"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line after `tables`; UserError for an invalid one."""
    parser = CommandParser(
        "benchmark.py", DESCRIPTION, "%(prog)s tables [DIR|FILE ...] [--write PAGE]", EXAMPLE, imports=False
    )
    parser.add_argument(
        "results",
        type=Path,
        nargs="*",
        metavar="DIR|FILE",
        help="folders written by benchmark.py all, or files of machines (default: docs/benchmarks/*.json)",
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the tables of this Markdown page")
    return parser.parse(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print or write the tables and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _run(parse(arguments)))


def _run(chosen: argparse.Namespace) -> None:
    machines = read_machines(chosen.results or MEASURED.glob("*.json"))
    if chosen.write is None:
        show_table("\n\n".join(page_tables(machines).values()))
        return
    try:
        page = chosen.write.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--write {plain(chosen.write)}: {error.strerror}. Give a page with tables") from error
    atomic_write_text(chosen.write, with_tables(page, machines))
    show(f"Wrote {chosen.write}")


def read_machines(paths: Iterable[Path]) -> list[Machine]:
    """Read the results of machines, the one measured last first."""
    machines = [read_machine(path) for path in sorted(paths)]
    return sorted(machines, key=lambda one: max(part["date"] for part in one.parts.values()), reverse=True)


def with_tables(page: str, machines: Sequence[Machine]) -> str:
    """Return a page with its tables replaced by those of these machines.

    Raises:
        UserError: If the page names a table that does not exist.
    """
    tables = page_tables(machines)

    def table(found: re.Match[str]) -> str:
        if found["name"] not in tables:
            raise UserError(f"unknown table {found['name']}. Choices: {', '.join(tables)}")
        return f"{found[1]}{tables[found['name']]}\n{found[3]}"

    return _TABLE.sub(table, page)


def page_tables(machines: Sequence[Machine]) -> dict[str, str]:
    """Return all tables in Markdown, by name."""
    tables = {MACHINES: machines_table(machines)}
    return tables | {name: topic_table(topic, machines) for name, topic in TOPICS.items()}


def machines_table(machines: Sequence[Machine]) -> str:
    """Return the table of processors, software and precisions in use."""
    facts: dict[str, list[str]] = {}
    for column, machine in enumerate(machines):
        for key, text in _description(machine).items():
            facts.setdefault(key, [_UNKNOWN] * len(machines))[column] = text
    return _markdown(
        ["", *(f"**{machine.name}**" for machine in machines)], [[key, *row] for key, row in facts.items()]
    )


def _description(machine: Machine) -> dict[str, str]:
    known: dict[str, Any] = dict(machine.machine)
    sets, limits = known.get("instruction sets", ()), known.get("limits", {})
    described = {
        "processor": " ".join(filter(None, (known["CPU"], known.get("CPU family") and f"({known['CPU family']})"))),
        "instruction sets": ", ".join(sets) or _UNKNOWN,
        "limited by": ", ".join(f"{name}={value}" for name, value in limits.items()),
        "cores": str(known["cores"]),
        "memory": f"{known['memory (GiB)']} GiB" if "memory (GiB)" in known else "",
        "GPU": known.get("GPU", "none"),
        "Python, PyTorch": f"{known['python']}, {known['torch']}",
        "slowfast": machine.versions,
    }
    described |= {f"`{key}`": text for key, text in known.get("precisions", {}).items()}
    return {key: text for key, text in described.items() if text}


def topic_table(topic: Topic, machines: Sequence[Machine]) -> str:
    """Return the table of a topic; machines that have no figure of it get no column."""
    columns = {machine.name: _cells(topic.rows, machine.figures) for machine in machines}
    shown = [machine for machine in machines if columns[machine.name]]
    labels = dict.fromkeys(label for row in topic.rows for machine in shown for label in _labels(row, machine.figures))
    heads = [f"{machine.name} ({machine.best_sets})" for machine in shown]
    rows = [[label, *(columns[machine.name].get(label, _UNKNOWN) for machine in shown)] for label in labels]
    return _markdown([topic.heading, *heads], rows) if shown else "Not measured yet."


def _labels(row: Row, figures: Figures) -> dict[str, list[str]]:
    """Return the labels of a row, each with the groups of its figures."""
    found: dict[str, list[str]] = {}
    for group in figures:
        match = re.fullmatch(row.group, group)
        if match and any(name in figures[group] for name in _FIGURE.findall(row.template)):
            found.setdefault(row.label.format(*match.groups()), []).append(group)
    return found


def _cells(rows: Sequence[Row], figures: Figures) -> dict[str, str]:
    """Return the cells of a machine, by label."""
    cells = {}
    for row in rows:
        for label, groups in _labels(row, figures).items():
            cells[label] = _FIGURE.sub(lambda found: _range(found[1], groups, figures), row.template)  # noqa: B023
    return cells


def _range(name: str, groups: Sequence[str], figures: Figures) -> str:
    """Return a figure as text: the lowest and highest value if groups have several."""
    found = [figures[group][name][0] for group in groups if name in figures[group]]
    values = [value for one in found for value in _as_list(one)]
    if not values:
        return _UNKNOWN
    texts = dict.fromkeys(map(number, (min(values), max(values))))
    return " to ".join(texts)


def _as_list(value: Number) -> list[float]:
    return value if isinstance(value, list) else [value]


def number(value: float) -> str:
    """Return a value with three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} million"
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
