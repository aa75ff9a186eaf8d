"""Tables of several machines; docs/BENCHMARKS.md matches the results in docs/benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.measure import TARGETS
from benchmarks.results import Machine, read_machine
from benchmarks.tables import MEASURED, main, number, page_tables, read_machines, topic_table, with_tables
from benchmarks.topics import TOPICS, Row, Topic
from slowfast.errors import UserError
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "BENCHMARKS.md"
WRITE = "python tools/benchmark.py tables --write docs/BENCHMARKS.md"


def machine(name: str, figures: dict[str, dict[str, list[object]]], date: str = "2026-01-01") -> Machine:
    about = {"CPU": f"CPU of {name}", "instruction sets": ["AVX2"], "cores": 2, "python": "3.11", "torch": "2.13"}
    return Machine(name, about, {"part": {"command": "", "version": "0.1", "date": date, "figures": figures}})


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page, read_machines(MEASURED.glob("*.json"))), f"run {WRITE}"


def test_the_page_has_every_table() -> None:
    found = re.findall(r"<!-- table: (\w+) -->", PAGE.read_text(encoding="utf-8"))
    assert found == list(dict.fromkeys(found)) and set(found) == {"machines", *TOPICS}


def test_measured_machines() -> None:
    machines = [read_machine(file) for file in MEASURED.glob("*.json")]
    assert machines
    for one in machines:
        assert one.machine.keys() >= {"CPU", "instruction sets", "cores", "python", "torch"}
        assert all(part.keys() >= {"command", "version", "date", "figures"} for part in one.parts.values())
        assert "/" not in "".join(part["command"].replace("tools/", "") for part in one.parts.values())  # no paths
    figures = {group for one in machines for group in one.figures}
    shown = [row for topic in TOPICS.values() for row in topic.rows]
    assert [group for group in figures if not any(re.fullmatch(row.group, group) for row in shown)] == []


def test_every_row_shows_something() -> None:
    machines = read_machines(MEASURED.glob("*.json"))
    for topic in TOPICS.values():
        labels = [row.label for row in topic.rows]
        assert len(set(labels)) == len(labels)
        for line in topic_table(topic, machines).splitlines()[2:]:
            assert set(line.split("|")[2:-1]) != {" - "}, line


def test_machines_stand_side_by_side() -> None:
    topic = Topic("case", (Row("`{}`, all", r"load, (\w+)", "{rate} clips/s"), Row("speed", "s, .*", "{speed-up}x")))
    one = machine("one", {"load, a": {"rate": [12.345, "clips/s"]}, "load, b": {"rate": [0.5, "clips/s"]}})
    speeds = {"s, x": {"speed-up": [2, "x"]}, "s, y": {"speed-up": [10, "x"], "more": [1, "x"]}}
    two = machine("two", {"load, b": {"rate": [12345, "clips/s"]}, **speeds})
    three = machine("three", {"other": {"rate": [1, "clips/s"]}})  # has no column
    assert topic_table(topic, [one, two, three]).splitlines() == [
        "| case | one (AVX2) | two (AVX2) |",
        "| --- | --- | --- |",
        "| `a`, all | 12.3 clips/s | - |",
        "| `b`, all | 0.5 clips/s | 12,300 clips/s |",
        "| speed | - | 2 to 10x |",
    ]
    assert topic_table(topic, [three]) == "Not measured yet."


def test_tables_of_a_page_are_replaced() -> None:
    page = "a\n<!-- table: load -->\nold\n<!-- end of table -->\nb\n"
    written = with_tables(page, [machine("one", {"load, prepared files": {"clips/s": [7, "clips/s"]}})])
    assert "| prepared by `slowfast prepare` | 7 clips/s |" in written and "old" not in written
    assert written.startswith("a\n<!-- table: load -->\n|") and written.endswith("|\n<!-- end of table -->\nb\n")
    with pytest.raises(UserError, match="unknown table none"):
        with_tables(page.replace("load", "none"), [])


def test_what_a_machine_does_is_described() -> None:
    one = machine("one", {})
    known = {**one.machine, "limits": {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "precisions": {"EVENT.PRECISION int8": "float32"}}
    table = page_tables([Machine("two", known, one.parts), one])["machines"]
    assert "| limited by | ONEDNN_MAX_CPU_ISA=AVX2 | - |" in table
    assert "| `EVENT.PRECISION int8` | float32 | - |" in table and "|  | **two** | **one** |" in table


def test_the_command_prints_or_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(file) for file in MEASURED.glob("*.json")]
    assert main(files[:1]) == 0
    assert "| --- |" in capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text("<!-- table: machines -->\n<!-- end of table -->\n")
    assert main([*files, "--write", str(page)]) == 0
    assert "instruction sets" in page.read_text()
    assert main([*files, "--write", str(tmp_path / "none.md")]) == 2
    bad = tmp_path / "bad.json"
    bad.write_text("[1]")
    assert main([str(bad)]) == 2 and "is not a result file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00123, "0.00123"), (12.345, "12.3"), (999.4, "999"), (12345, "12,300"), (3.3e6, "3.3 million")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_targets_are_of_figures_that_the_tables_show() -> None:
    rows = [row for topic in TOPICS.values() for row in topic.rows]
    for group, _ in TARGETS:
        assert any(re.fullmatch(row.group, group) for row in rows), group
