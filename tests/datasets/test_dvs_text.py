"""Lists of events as text: layouts, damage and other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events
from tests.raw_recordings import EVENTS, Event, events_of, read, rows


def text(order: str, separator: str, header: str = "", scale: float = 1, ending: str = "\n", digits: int = 0) -> str:
    def cell(event: Event, key: str) -> str:
        value = event["xytp".index(key)]
        return f"{value * scale:.{digits}f}" if key == "t" and scale != 1 else str(value)

    lines = [separator.join(cell(event, key) for key in order) for event in EVENTS]
    return header + ending.join(lines) + ending


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rpg.txt", "34 30\n" + text("txyp", " ", scale=1e-6, digits=9)),
        ("prophesee.csv", text("xypt", ",", "%geometry:34,30\n")),
        ("header.csv", text("txyp", ",", "t,x,y,p\n")),
        ("faery.csv", text("txyp", ",", "t,x@34,y@30,on\n")),
        ("pandas.csv", text("pxyt", ";", "Polarity;X;Y;Timestamp\r\n", ending="\r\n")),
        ("units.csv", text("txyp", ",", "time [ms],x,y,p\n", 1e-3, digits=3)),
        ("ns.csv", text("xytp", "\t", "x\ty\tt_ns\tp\n", 1000)),
        ("comment.txt", text("xytp", " ", "# x y t p\n# another\n")),
        ("ms.txt", text("xytp", " ", scale=1e-3, digits=3)),
        ("bom.csv", "\ufeff" + text("txyp", ",", "t,x,y,p\n")),
        ("bool.csv", text("txyp", ",", "t,x,y,p\n").replace(",1\n", ",True\n").replace(",0\n", ",False\n")),
        ("signed.txt", text("txyp", " ").replace(" 0\n", " -1\n")),
    ],
)
def test_layouts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert events_of(tmp_path / name) == EVENTS
    stated = name in ("rpg.txt", "prophesee.csv", "faery.csv")
    assert open_events(tmp_path / name).streams[0].sensor == ((30, 34) if stated else None)


def test_small_blocks_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowfast.datasets.dvs.formats.text.BLOCK_BYTES", 100)
    content = text("txyp", ",", "t,x,y,p\n")
    (tmp_path / "a.csv").write_text(content.rstrip("\n"))
    assert events_of(tmp_path / "a.csv") == EVENTS
    lines = content.splitlines(keepends=True)
    (tmp_path / "b.csv").write_text("".join([*lines[:101], "\n", *lines[101:201], "12,x\n", *lines[201:]]))
    (stream,) = read(tmp_path / "b.csv")
    assert rows(stream.events) == EVENTS[:200]
    assert stream.damage == "line 203: '12,x' has no 4 numbers; the events before were read"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Some remarks about the data.\n", "line 1: 'Some remarks about the data.' is not an event"),
        ("# nothing\n", "the file contains no events"),
        ("1,2,3\n4,5,6\n", "line 1 has 3 numbers"),
        ("class,startTime_usec,endTime_usec\n1,2,3\n", "line 1: 'class,startTime"),
        ("1 70000 3 1\n2 70000 5 1\n", "the values do not|its values do not show"),
        ("t,x,y,p\n1,2,3,4\n", "p contains 4"),
        ("t,x,y,p\n1,2.5,3,1\n", "x contains values that are not pixels"),
    ],
)
def test_other_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DecodeError, match=message):
        read(tmp_path / "a.txt")
