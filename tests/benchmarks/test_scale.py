"""Benchmarks of costs that grow with the dataset, on small sizes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scale import measure_confusion, measure_index, measure_opening, measure_precision, repeat_video
from slowfast.datasets.decode import open_video
from tests.video_files import write_video


def test_each_part_is_measured(tmp_path: Path) -> None:
    assert list(measure_index(tmp_path, 1000)) == ["reading", "order of a balanced epoch", "additional memory"]
    assert measure_confusion(tmp_path, 200, 500)["counting and drawing"] > 0
    assert measure_precision(50, 20)["average precision"] > 0
    video = write_video(tmp_path / "a.mp4", 12)
    assert [one.unit for one in measure_opening(video, tmp_path, 1)] == ["ms", "ms", "x"]
    with open_video(repeat_video(video, tmp_path / "b.mp4", 3)) as repeated:
        assert repeated.num_frames == 36 and repeated.fps == 25
