"""Checkpoint files: whole or not at all, found in order, safe to read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from slowfast.engine import checkpoint
from slowfast.errors import CheckpointError

STATE = {"model_state": {"w": torch.ones(2)}, "optimizer_state": {}, "epoch": 1, "step": 0}


def write(output: Path, epoch: int, step: int = 0) -> Path:
    path = checkpoint.checkpoint_folder(output) / checkpoint.checkpoint_name(epoch, step)
    checkpoint.save_checkpoint(path, STATE | {"epoch": epoch, "step": step})
    return path


def test_the_published_name() -> None:
    assert checkpoint.checkpoint_name(10, 0) == "checkpoint_epoch_00010.pyth"


def test_the_furthest_is_the_last(tmp_path: Path) -> None:
    assert checkpoint.find_last(tmp_path) is None
    paths = [write(tmp_path, *at) for at in ((2, 0), (2, 7), (10, 0), (9, 99), (10, 3))]
    assert checkpoint.find_last(tmp_path) == paths[4]
    assert checkpoint.find_checkpoints(tmp_path) == [paths[4], paths[2], paths[3], paths[1], paths[0]]


def test_a_truncated_file_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    bad.write_bytes(bad.read_bytes()[:-40])
    assert checkpoint.find_last(tmp_path) == good
    assert "checkpoint_epoch_00002.pyth is damaged" in caplog.text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1)
    before = path.read_bytes()

    def killed(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(path, STATE)
    assert path.read_bytes() == before
    assert checkpoint.find_last(tmp_path) == path


def test_tidy_keeps_what_is_asked_and_removes_half_written_files(tmp_path: Path) -> None:
    for at in ((1, 0), (2, 0), (2, 5), (3, 0), (3, 4)):
        write(tmp_path, *at)
    half = checkpoint.checkpoint_folder(tmp_path) / ".checkpoint_epoch_00004.pyth.tmp"
    half.write_bytes(b"half")
    checkpoint.tidy(tmp_path, keep=2)
    names = sorted(path.name for path in checkpoint.checkpoint_folder(tmp_path).iterdir())
    assert names == [
        "checkpoint_epoch_00002.pyth",
        "checkpoint_epoch_00003.pyth",
        "checkpoint_epoch_00003_step_00000004.pyth",
    ]


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "run"),)

    path = tmp_path / "evil.pyth"
    torch.save({**STATE, "extra": Evil()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pyth cannot be read"):
        checkpoint.read_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        checkpoint.read_checkpoint(path)
    assert not (tmp_path / "run").exists()


def test_bare_weights_are_no_training_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pyth"
    torch.save({"model_state": {}}, path)
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        checkpoint.read_checkpoint(path)
