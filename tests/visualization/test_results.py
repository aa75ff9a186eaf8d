"""Result files of a test: test_results.json, predictions.csv and failed.csv."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slowfast.datasets.types import Failure
from slowfast.engine.evaluate import Ensemble
from slowfast.engine.tasks.classification import ClassificationEvaluator, accuracy
from slowfast.utils.distributed import World
from slowfast.utils.text import redact
from slowfast.utils.text_files import csv_cell
from slowfast.visualization.results import (
    WIDTH,
    Results,
    Tested,
    TestReport,
    VideoPrediction,
    class_row,
    files_table,
    results_table,
    write_failed,
    write_predictions,
    write_results,
)

NAMES = ["left", "right, too", "up"]
VIDEOS = [
    VideoPrediction(2, "c.mp4", 2, [(2, 0.5), (0, 0.3), (1, 0.2)]),
    VideoPrediction(0, "a, b.mp4", 0, [(1, 0.61234567), (0, 0.3), (2, 0.08)]),
    VideoPrediction(1, "broken.mp4", 1),
    VideoPrediction(3, "d.mp4", 0, [(0, 0.9), (1, 0.1), (2, 0.0)]),
]

TESTED = Tested(
    "MorphMLP", "out/checkpoints/checkpoint_best.pyth", "12ab", "best", 7, "kinetics", "d", "CPU", "2026-01-02"
)


def summary(predictions: list[VideoPrediction], num_classes: int = 3) -> TestReport:
    results = ClassificationEvaluator(World(), num_classes, Ensemble(), views=4, crops=3).compute(predictions)
    return TestReport.from_run(
        results,
        videos=len(predictions),
        failed=sum(not one.best for one in predictions),
        views=4,
        crops=3,
        seconds=2.0,
        peak_memory=3 * 2**20,
        config_digest="abc",
        tested=TESTED,
        extra=Results(),
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_failed_videos_count_as_wrong_in_the_headline_only():
    report = summary(VIDEOS)
    values = report.results.values
    assert (values["top1"], values["top1_read"]) == (50.0, 66.67)
    assert (values["top5"], values["top5_read"], values["k"]) == (75.0, 100.0, 3)
    assert (report.videos, report.failed, report.clips_per_second) == (4, 1, 18.0)
    assert report.peak_memory_mib == 3.0
    assert report.versions["torch"] and report.versions["python"].startswith("3.")


def test_nothing_read_and_nothing_at_all():
    report = summary([VideoPrediction(0, "a", 0)])
    values = report.results.values
    assert (values["top1"], values["top1_read"], report.failed) == (0.0, 0.0, 1)
    assert summary([]).results.values["top1"] == 0.0


@given(
    st.lists(st.tuples(st.integers(0, 9), st.permutations(range(10)), st.booleans())),
    st.integers(1, 5),
)
def test_accuracy_against_a_plain_count(drawn, k):
    videos, hits = [], 0
    for index, (label, order, read) in enumerate(drawn):
        best = [(place, 0.1) for place in order[:5]] if read else []
        videos.append(VideoPrediction(index, str(index), label, best))
        if read:
            for place in order[:k]:
                hits += place == label
    expected = 100 * hits / len(drawn) if drawn else 0.0
    assert accuracy(videos, k) == pytest.approx(expected, abs=0.005 + 1e-9)  # is rounded to two digits


def test_results_json_holds_every_figure(tmp_path):
    write_results(summary(VIDEOS), tmp_path / "out" / "test_results.json")
    read = json.loads((tmp_path / "out" / "test_results.json").read_text())
    assert read["top1"] == 50.0 and read["views"] == 4 and read["config_digest"] == "abc"
    assert read == summary(VIDEOS).as_dict() and read["results"]["top-1"].startswith("50.00 %")
    assert read.keys() == {
        *("top1", "top5", "top1_read", "top5_read", "k", "top1_view", "top1_view_std", "videos", "failed", "views"),
        *("mean_class_accuracy", "calibration_error"),
        *("crops", "seconds", "clips_per_second", "peak_memory_mib", "config_digest", "versions"),
        *("model", "checkpoint", "checkpoint_sha256", "checkpoint_choice", "checkpoint_epoch", "dataset", "data"),
        *("device", "date", "results"),
    }


def test_predictions_are_in_index_order_and_failed_ones_keep_their_line(tmp_path):
    path = tmp_path / "predictions.csv"
    evaluator = ClassificationEvaluator(World(), 3, Ensemble())
    evaluator._own = [(one.index, bool(one.best), one) for one in VIDEOS]
    evaluator.evaluate()
    write_predictions((evaluator.row(one, NAMES) for one in evaluator.predictions), path)
    read = rows(path)
    assert [row["path"] for row in read] == ["a, b.mp4", "broken.mp4", "c.mp4", "d.mp4"]
    assert read[0] == {
        "path": "a, b.mp4",
        "label": "0",
        "prediction": "1",
        "class_name": "right, too",
        "score": "0.6123",
        "five_best": "1:0.6123 0:0.3000 2:0.0800",
    }
    assert read[1] == dict.fromkeys(read[1], "") | {"path": "broken.mp4", "label": "1"}


def test_rounding_errors_do_not_show(tmp_path):
    for name, error in (("one", 0.0), ("two", 3e-7)):
        video = VideoPrediction(0, "a.mp4", 0, [(0, 0.51234 + error), (1, 0.48766 - error)])
        write_predictions([class_row(video.name, video.label, video.best, NAMES)], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_failed_list_is_written_even_when_empty_and_once_a_failure(tmp_path):
    path = tmp_path / "failed.csv"
    lost, partly = (
        Failure(5, "b.mp4", "no, video stream"),
        Failure(1, "a.mp4", "2 frames missing", lost=False),
    )
    write_failed([lost, partly, lost], path)
    assert rows(path) == [
        {"path": "a.mp4", "lost": "no", "reason": "2 frames missing"},
        {"path": "b.mp4", "lost": "yes", "reason": "no, video stream"},
    ]
    write_failed([], path)
    assert path.read_text() == "path,lost,reason\n"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        (os.fsdecode(b"caf\xe9.mp4"), r"caf\xe9.mp4"),
        ("caf\u00e9.mp4", "caf\u00e9.mp4"),
        ("a\nb\r\t.mp4", r"a\nb\r\t.mp4"),
        (r"a\nb.mp4", r"a\\nb.mp4"),
        ("\x1b[2J\x9b1m.mp4", r"\x1b[2J\u009b1m.mp4"),
        ("\u202e4pm.mp4", r"\u202e4pm.mp4"),
        ("=1+1.mp4", r"\=1+1.mp4"),
        ("  @SUM(A1).mp4", r"\  @SUM(A1).mp4"),
        ("-0.25", "-0.25"),
        ("-1|cmd", r"\-1|cmd"),
        ('a"b, c', 'a"b, c'),
        ("a;=1+1", "a;=1+1"),
        (" a ", " a "),
        ("", ""),
        ("rtsp://admin:s3cret@10.0.0.1/x", "rtsp://***@10.0.0.1/x"),
    ],
)
def test_cells_are_only_text(tmp_path, name, cell):
    write_failed([Failure(0, name, "cut")], tmp_path / "failed.csv")
    text = (tmp_path / "failed.csv").read_text(encoding="utf-8")
    assert text.count("\n") == 2 and not set(text) & {"\x1b", "\r", "\t"}
    assert rows(tmp_path / "failed.csv") == [{"path": cell, "lost": "yes", "reason": "cut"}]
    if ";" in name:
        assert f'"{name}"' in text  # a program that splits at ";" must not find a formula


ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def recovered(cell: str) -> str:
    """Undo the escapes of a cell, as its documentation says."""

    def character(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x" and len(code) > 1:
            value = int(code[1:], 16)
            return chr(value if value < 0x80 else value + 0xDC00)
        return chr(int(code[1:], 16)) if code[0] == "u" and len(code) > 1 else ESCAPES.get(code, code)

    return re.sub(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|.)", character, cell, flags=re.DOTALL)


@given(st.text(st.one_of(st.characters(), st.sampled_from("\\=+-@nrtxu\n\x1b0 9\udc80\udcff\u0080"))))
def test_every_name_can_be_recovered(name):
    assume(redact(name) == name)
    cell = csv_cell(name)
    assert recovered(cell) == name and not set(cell) & set("\n\r\x1b")
    cell.encode()  # is valid UTF-8
    assert cell.lstrip()[:1] not in tuple("=+-@") or float(cell) is not None


def test_table_says_what_failed_only_when_something_did():
    text = results_table(summary(VIDEOS))
    assert "50.00 % (failed videos count as wrong)" in text and "66.67 %" in text
    assert "top-3" in text and "4 x 3" in text
    whole = results_table(summary([VIDEOS[0]]))
    assert "failed" not in whole and "100.00 %" in whole
    assert max(map(len, (text + "\n" + whole).splitlines())) <= WIDTH


def test_files_table_fits_the_screen():
    files = {"predictions": Path("/very/long" * 20) / "predictions.csv", "curves": Path("out/curves.png")}
    lines = files_table(files).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].endswith("predictions.csv") and "out/curves.png" in lines[1]
