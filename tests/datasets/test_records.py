"""Columnar records equal those parsed line by line, and worker processes share them."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slowfast.datasets.index import labeled_paths, lines, something
from slowfast.datasets.index.entries import CLASSES, ONE_CLASS, LabelFormat, SampleRoot
from slowfast.datasets.index.labeled_paths import format_line, read_labeled_paths
from slowfast.datasets.index.lines import Lines, read_lines
from slowfast.datasets.records import RecordTable, TableBuilder, labels_of
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

SPACES = [" ", "\t", "\u3000", "\x1c", "\xa0", "\u2028", "\x85", "  ", "     "]
PARTS = [
    "a",
    "b.mp4",
    "{folder}",
    "..",
    "/",
    '"',
    '""',
    ",",
    ";",
    "::",
    "0",
    "7",
    "12",
    "3,1",
    "007",
    "é",
    "日本",
    "\u202e",
    "-1",
]
LINES = st.lists(st.sampled_from([*PARTS, *SPACES]), max_size=9).map("".join)
GOOD = st.builds(
    lambda name, label, separator: format_line(name.strip() or "x", separator, label).rstrip("\n"),
    st.lists(st.sampled_from(PARTS[:2] + ["é", "日本", " ", ",", '"']), min_size=1, max_size=4).map("".join),
    st.integers(0, 9) | st.sampled_from([(1,), (2, 5), (0, 3, 9)]),
    st.sampled_from([" ", ",", "::"]),
)
TEXTS = st.lists(GOOD | LINES, min_size=1, max_size=8)
SEPARATORS = st.sampled_from([" ", ",", "\t", "::", ";"])
BREAKS = st.sampled_from(["\n", "\r\n", "\r"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


def outcome(read: Callable[[], Sequence[Record]]) -> list[Record] | str:
    """Return the records, or the message of the error."""
    try:
        return list(read())
    except IndexFileError as error:
        return str(error)


def one_by_one(module: Any, split: str) -> Any:
    """Let a reader parse every line by itself."""
    real = getattr(module, split)

    def doubt(*arguments: Any) -> Any:
        *ranges, valid = real(*arguments)
        return (*ranges, np.zeros_like(valid))

    return mock.patch.object(module, split, doubt)


@settings(deadline=None, max_examples=120)
@given(
    TEXTS, BREAKS, st.sampled_from([" ", ",", "\t", "::", ";"]), st.sampled_from([ONE_CLASS, CLASSES]), st.booleans()
)
@example(texts=['"'], end="\n", separator=" ", labels=ONE_CLASS, prefix=True)
def test_labeled_paths_equal_those_parsed_one_by_one(
    folder: Path, texts: list[str], end: str, separator: str, labels: LabelFormat, prefix: bool
) -> None:
    file, root = folder / "list.csv", SampleRoot(str(folder) if prefix else "")
    file.write_text(end.join(text.replace("{folder}", str(folder)) for text in texts), newline="", encoding="utf-8")
    with mock.patch.object(labeled_paths, "check_samples_exist"), mock.patch.object(lines, "_BLOCK", 3):
        found = outcome(lambda: read_labeled_paths(file, "", root, separator, 10, labels))
        with one_by_one(labeled_paths, "split_labeled_lines"):
            assert found == outcome(lambda: read_labeled_paths(file, "", root, separator, 10, labels))
    if not isinstance(found, str):
        assert [record.path for record in found] == [root.locate(record.name) for record in found]


FRAME_PARTS = ["a", "b c", "..", "/", "12", "0", "3", "007", "-1", "日本", "1234567890", *SPACES]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from(FRAME_PARTS), max_size=7).map(" ".join), min_size=1, max_size=6))
def test_folders_of_frames_equal_those_parsed_one_by_one(folder: Path, texts: list[str]) -> None:
    (folder / "train.txt").write_text("\n".join(texts), encoding="utf-8", newline="")
    arguments = (folder, "{}.txt", "train", str(folder), 10)
    with mock.patch.object(something, "check_samples_exist"), mock.patch.object(lines, "_BLOCK", 2):
        found = outcome(lambda: something.read_something_index(*arguments))
        with one_by_one(something, "split_frame_lines"):
            assert found == outcome(lambda: something.read_something_index(*arguments))


@settings(deadline=None, max_examples=60)
@given(st.lists(LINES, max_size=8), BREAKS)
def test_lines_equal_those_of_python(folder: Path, texts: list[str], end: str) -> None:
    (folder / "lines.txt").write_text(end.join(texts), encoding="utf-8", newline="")
    expected = [(number, text.strip()) for number, text in enumerate(texts, start=1) if text.strip()]
    assert read_lines(folder / "lines.txt", "") == expected


def test_usual_lines_are_parsed_together(folder: Path) -> None:
    """All kinds of lines in real lists are parsed by the fast path."""
    usual = [f"{folder}/a b.mp4,3", "日本/a.mp4, 9", '"a, b.mp4",4', '"c.mp4","5"', "d.mp4 ,0007"]
    (folder / "list.csv").write_text("\n".join(usual), encoding="utf-8")
    found = lines.scan_lines(folder / "list.csv", "")
    [block] = list(found.blocks())
    names, _, valid = labeled_paths.split_labeled_lines(block, ",")
    assert valid.all() and SampleRoot(str(folder)).surely_holds(block.codes, *names).all()
    assert isinstance(found, Lines) and len(found) == 5


def tables(folder: Path) -> list[RecordTable]:
    (folder / "list.csv").write_text('a.mp4 1\n"b "" c.mp4" 2\n../x.mp4 0\n')
    (folder / "several.csv").write_text("a.mp4 1,2\nb.mp4 0\n")
    (folder / "train.txt").write_text("a 12 3\nb 1 2\n")
    floats = LabelFormat(lambda text, _: float(text), "a number")
    builder = TableBuilder(folder)
    builder.extend(["x/1.jpg", "x/\udcff.jpg"], 3)
    builder.extend(["y/1.jpg"], [4])
    with mock.patch.object(labeled_paths, "check_samples_exist"), mock.patch.object(something, "check_samples_exist"):
        return [
            read_labeled_paths(folder / "list.csv", "", SampleRoot(""), " ", 10),
            read_labeled_paths(folder / "several.csv", "", SampleRoot(""), " ", 10, CLASSES),
            read_labeled_paths(folder / "list.csv", "", SampleRoot(""), " ", 10, floats),
            something.read_something_index(folder, "{}.txt", "train", str(folder), 10),
            builder.build(),
        ]


def test_a_table_is_a_sequence(folder: Path) -> None:
    quoted, several, floats, frames, built = tables(folder)
    records = [Record(0, Path.cwd() / "a.mp4", "a.mp4", 1), Record(1, Path.cwd() / 'b " c.mp4', 'b " c.mp4', 2)]
    assert quoted[:2] == records and quoted[-2] == records[1] and quoted[2].path == Path.cwd().parent / "x.mp4"
    assert quoted == list(quoted) and list(quoted) == quoted and quoted != records and len(quoted + records) == 5
    with pytest.raises(IndexError):
        quoted[3]
    assert [type(label) for label in (quoted[0].label, several[0].label, floats[0].label)] == [int, tuple, float]
    assert several.labels() == [(1, 2), (0,)] and labels_of(several) == labels_of(list(several))
    assert [(record.frames, record.label) for record in frames] == [(12, 3), (1, 2)] and built[0].frames is None
    assert [record.name for record in built] == ["x/1.jpg", "x/\udcff.jpg", "y/1.jpg"] and built.labels() == [3, 3, 4]
    assert TableBuilder(folder).build() == []
    for table in tables(folder):
        assert copy.deepcopy(table) == table


def _report(table: RecordTable, connection: Any) -> None:
    connection.send((list(table), table._text.flags.writeable, len(pickle.dumps(table))))


def test_a_spawned_process_maps_the_columns(folder: Path) -> None:
    """The pickled data does not grow with the number of records."""
    builder = TableBuilder(folder)
    builder.extend([f"{number:0200d}.jpg" for number in range(5000)], 3, range(1, 5001))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    table = builder.build()
    process = context.Process(target=_report, args=(table, there))
    process.start()
    records, writeable, size = here.recv()
    process.join()
    assert records == list(table) and not writeable and size > 10**6
