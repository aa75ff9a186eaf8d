"""Writers of reports, videos, features and graphs on a full disk: a user error, and no partial file."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import write_video

from slowfast.datasets.types import Record
from slowfast.errors import DiskError, UserError
from slowfast.inference.export import export
from slowfast.inference.features import Features, write_features
from slowfast.models.morphmlp import MorphMLP
from slowfast.prepare.encode import PrepareSettings, prepare_video
from slowfast.utils.text_files import write_csv
from slowfast.visualization.metrics_log import MetricsLog, read_metrics
from slowfast.visualization.plots import new_figure, save_png
from slowfast.visualization.video_writer import VideoWriter

LIMIT = 8192  # bytes


@pytest.fixture
def full_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8)


def draw(path: Path) -> None:
    figure = new_figure(4, 4)
    figure.add_subplot().imshow(noise(0))
    save_png(figure, path)


def annotate(path: Path) -> None:
    with VideoWriter(path, Fraction(25), Fraction(1, 25)) as out:
        for tick in range(12):
            out.write(noise(tick), tick)


def features(path: Path) -> None:
    records = [Record(index, Path("x"), f"{index}.mp4", 0) for index in range(4)]
    write_features(Features(records, torch.zeros(4, 2000), []), 1, path)


WRITERS = {
    "a.png": draw,
    "a.mp4": annotate,
    "a.npz": features,
    "a.csv": lambda path: write_csv(path, ("a", "b"), [("x" * 100, number) for number in range(200)]),
    "a.pt2": lambda path: export(MorphMLP(3, 2, (1, 1, 1, 1), (8, 8, 8, 8), (4, 2, 1, 1)), (3, 2, 32, 32), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_a_user_error_and_leaves_no_file(name: str, tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(DiskError, match=f"Cannot write {tmp_path / name}: the disk of {tmp_path} does not take"):
        WRITERS[name](tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_row_of_the_metrics_is_written_completely_or_not(tmp_path: Path, full_disk: None) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    written = 0
    with pytest.raises(DiskError, match="the disk of OUTPUT_DIR"):
        while True:
            log.write({"split": "train", "step": written, "loss": 0.5, "note": "x" * 1000})
            written += 1
    log.close()
    assert written > 3 and [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(written))
    assert (tmp_path / "metrics.jsonl").read_text().endswith("}\n")


def test_a_prepared_video_is_not_left_in_part(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    write_video(source, frames=60, size=(240, 320))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises((DiskError, UserError), match="Cannot write"):
            prepare_video(source, tmp_path / "out" / "a.mp4", PrepareSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "out").iterdir())
