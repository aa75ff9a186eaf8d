"""Calibration of the threshold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.cli.calibrate import main
from slowfast.cli.setup import load_config
from slowfast.errors import UserError
from slowfast.event_driven.activity import Summary
from slowfast.event_driven.calibrate import GRID, Calibration, Candidate, Goal, find_threshold
from slowfast.event_driven.sources import find_files
from tests.event_driven.settings import EMPTY, on_videos
from tests.video_files import write_video


def candidate(threshold: float, same: float, error: float) -> Candidate:
    summary = Summary(1, [100.0], 0.0, 1.0, 1.0, 0, top1_agreement=same, logit_error_mean=error, logit_error_max=error)
    return Candidate(threshold, summary)


@given(good=st.integers(1, len(GRID)), by_error=st.booleans())
def test_finds_largest_threshold(good: int, by_error: bool) -> None:
    measured = []

    def measure(threshold: float) -> Candidate:
        measured.append(threshold)
        index = GRID.index(threshold)
        return candidate(threshold, 99.5 if index < good else 98.0, 0.01 if index < good else 0.1)

    best, tried = find_threshold(measure, Goal(logit_error=0.05) if by_error else Goal(top1=0.99))
    assert best.threshold == GRID[good - 1]
    assert sorted(measured) == [one.threshold for one in tried] and len(measured) <= 6


def test_grid_ascends_from_0() -> None:
    assert GRID[0] == 0 and list(GRID) == sorted(set(GRID)) and 0.05 < GRID[-1]


def test_unreachable_goal_is_an_error() -> None:
    with pytest.raises(UserError, match="no threshold gives top-1 agreement of at least 99 %"):
        find_threshold(lambda threshold: candidate(threshold, 90.0, 0.2), Goal(top1=0.99))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "a.mp4", 33, size=(48, 64))
    write_video(root / "b.mkv", 18, size=(64, 40))
    (root / "c.mp4").write_text("text")
    return root


@pytest.mark.parametrize("goal", [["--top1", "0.97"], ["--logit-error", "0.02"]])
def test_written_config_meets_the_goal(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], goal: list[str]
) -> None:
    base, out = tmp_path / "base.yaml", tmp_path / "deep" / "calibrated.yaml"
    base.write_text("EVENT:\n  GATE: any\n")
    settings = [str(word) for word in on_videos(folder, tmp_path)]
    assert main(["--cfg", str(base), str(folder), *goal, "--out", str(out), *settings]) == 0
    said = capfd.readouterr().out
    assert "chosen" in said and "c.mp4 cannot be read" in said and str(out) in said
    assert "weights are untrained" in said and "weights are untrained" in out.read_text()
    cfg = load_config(out, settings)
    assert cfg.EVENT.GATE == "any" and cfg.EVENT.THRESHOLD in GRID
    measured = Calibration(cfg, torch.device("cpu"), find_files([folder], 1)).measure(cfg.EVENT.THRESHOLD).summary
    assert measured.frames == 51 and measured.macs_saved > 0
    if "--top1" in goal:
        assert measured.top1_agreement is not None and measured.top1_agreement >= 97
    else:
        assert measured.logit_error_mean is not None and measured.logit_error_mean <= 0.02


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--top1", "99"], "is not a number from 0 to 1"),
        (["--top1", "0.9", "--logit-error", "0.1"], "not allowed with"),
        (["MODEL.MODEL_NAME", "ConvMLP"], "must be evMLP"),
        (["--out", str(EMPTY)], "Choose another file"),
        (["--out", str(EMPTY / "new" / "c.yaml")], "empty.yaml is not a directory. Choose another folder"),
    ],
)
def test_user_errors_are_one_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    settings = [str(word) for word in on_videos(folder, tmp_path)]
    options = [word for word in words if not word.startswith("MODEL")] if words[0].startswith("--") else []
    keys = words if not options else []
    assert main(["--cfg", str(EMPTY), str(folder), *options, *settings, *keys]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert part in line
