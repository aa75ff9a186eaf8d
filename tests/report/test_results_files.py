from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.datasets.types import Failure
from slowfast.report.results import (
    TestReport,
    VideoPrediction,
    accuracy,
    summarize,
    write_failed,
    write_predictions,
    write_results,
)
from slowfast.report.tables import WIDTH, files_table, results_table

NAMES = ["left", "right, too", "up"]
VIDEOS = [
    VideoPrediction(2, "c.mp4", 2, [(2, 0.5), (0, 0.3), (1, 0.2)]),
    VideoPrediction(0, "a, b.mp4", 0, [(1, 0.61234567), (0, 0.3), (2, 0.08)]),
    VideoPrediction(1, "broken.mp4", 1),
    VideoPrediction(3, "d.mp4", 0, [(0, 0.9), (1, 0.1), (2, 0.0)]),
]


def summary(predictions: list[VideoPrediction], num_classes: int = 3) -> TestReport:
    return summarize(
        predictions,
        num_classes=num_classes,
        views=4,
        crops=3,
        seconds=2.0,
        peak_memory=3 * 2**20,
        config_digest="abc",
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_failed_videos_count_as_wrong_in_the_headline_only():
    report = summary(VIDEOS)
    assert (report.top1, report.top1_read) == (50.0, 66.67)
    assert (report.top5, report.top5_read, report.k) == (75.0, 100.0, 3)
    assert (report.videos, report.failed, report.clips_per_second) == (4, 1, 18.0)
    assert report.peak_memory_mib == 3.0
    assert report.versions["torch"] and report.versions["python"].startswith("3.")


def test_nothing_read_and_nothing_at_all():
    report = summary([VideoPrediction(0, "a", 0)])
    assert (report.top1, report.top1_read, report.failed) == (0.0, 0.0, 1)
    assert summary([]).top1 == 0.0


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
    assert accuracy(videos, k) == pytest.approx(expected, abs=0.005)


def test_results_json_holds_every_figure(tmp_path):
    write_results(summary(VIDEOS), tmp_path / "out" / "test_results.json")
    read = json.loads((tmp_path / "out" / "test_results.json").read_text())
    assert read["top1"] == 50.0 and read["views"] == 4 and read["config_digest"] == "abc"
    assert TestReport(**read) == summary(VIDEOS)


def test_predictions_are_in_index_order_and_failed_ones_keep_their_line(tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(VIDEOS, NAMES, path)
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
        write_predictions([video], NAMES, tmp_path / name)
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


def test_names_that_are_no_text_survive(tmp_path):
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    write_failed([Failure(0, name, "cut")], tmp_path / "failed.csv")
    assert b"caf\xe9.mp4" in (tmp_path / "failed.csv").read_bytes()


def test_cells_may_hold_anything(tmp_path):
    names = ["a\rb", "a\nb", 'a"b', "a,b", "a\r\nb", " a ", ""]
    write_failed([Failure(number, name, "cut") for number, name in enumerate(names)], tmp_path / "failed.csv")
    with (tmp_path / "failed.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names


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
