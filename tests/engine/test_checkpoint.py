"""Checkpoint files: complete or absent, found in order, safe to read."""

from __future__ import annotations

import os
import pickle
import resource
from pathlib import Path

import pytest
import torch

from slowfast.engine import checkpoints
from slowfast.errors import CheckpointError, DamagedFileError, DiskError

STATE = {"model_state": {"w": torch.ones(2)}, "optimizer_state": {}, "epoch": 1, "step": 0}


def write(output: Path, epoch: int, step: int = 0) -> Path:
    path = checkpoints.checkpoint_folder(output) / checkpoints.checkpoint_name(epoch, step)
    checkpoints.save_checkpoint(path, STATE | {"epoch": epoch, "step": step})
    return path


def test_the_published_name() -> None:
    assert checkpoints.checkpoint_name(10, 0) == "checkpoint_epoch_00010.pyth"


def test_the_furthest_is_the_last(tmp_path: Path) -> None:
    assert checkpoints.find_last(tmp_path) is None
    paths = [write(tmp_path, *at) for at in ((2, 0), (2, 7), (10, 0), (9, 99), (10, 3))]
    assert checkpoints.find_last(tmp_path) == paths[4]
    assert checkpoints.find_checkpoints(tmp_path) == [paths[4], paths[2], paths[3], paths[1], paths[0]]


def test_a_truncated_file_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    bad.write_bytes(bad.read_bytes()[:-40])
    assert checkpoints.find_last(tmp_path) == good
    assert "checkpoint_epoch_00002.pyth is damaged" in caplog.text


def damaged(path: Path) -> Path:
    """Flip one bit of the tensor; the end of the archive stays intact."""
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\x80?\x00\x00\x80?")] ^= 1
    path.write_bytes(data)
    return path


def test_a_damaged_last_one_is_reported_once_and_the_one_before_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write(tmp_path, 1)
    bad = [damaged(write(tmp_path, 2)), damaged(write(tmp_path, 2, 5)), write(tmp_path, 3)]
    bad[2].write_bytes(bad[2].read_bytes()[:-40])
    for _ in range(2):
        found = checkpoints.read_last(tmp_path)
        assert found is not None and found[0] == good and torch.equal(found[1]["model_state"]["w"], torch.ones(2))
        assert checkpoints.find_last(tmp_path) == good
    for path in bad:
        reports = [record.getMessage() for record in caplog.records if f"{path} is damaged" in record.getMessage()]
        assert len(reports) == 1 and reports[0].startswith("Skipping damaged checkpoint, ")
    with pytest.raises(DamagedFileError, match="checksum"):
        checkpoints.read_checkpoint(bad[0])


def test_a_damaged_checkpoint_is_not_what_others_are_measured_by(tmp_path: Path) -> None:
    write(tmp_path, 1)
    last = damaged(write(tmp_path, 3))
    checkpoints.read_last(tmp_path)
    fresh = write(tmp_path, 1, 7)
    checkpoints.clean_up(tmp_path, keep=1)
    assert fresh.exists() and last.exists() and checkpoints.find_last(tmp_path) == fresh
    rewritten = write(tmp_path, 3)
    assert checkpoints.find_last(tmp_path) == rewritten


def test_a_run_never_starts_over_because_all_are_damaged(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        damaged(write(tmp_path, epoch))
    for read in (checkpoints.read_last, checkpoints.find_last):
        with pytest.raises(
            CheckpointError, match=r"every checkpoint is damaged \(.*00005.*00004.*and 2 more\)"
        ) as caught:
            read(tmp_path)
        assert "Restore one from a copy" in str(caught.value)
    assert checkpoints.read_last(tmp_path / "elsewhere") is None


def test_a_full_disk_is_one_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (0, 100, 5000, 100_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(DiskError, match=f"Cannot write {path}: the disk of OUTPUT_DIR .*"):
                checkpoints.save_checkpoint(path, STATE | {"large": torch.zeros(50_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1)
    before = path.read_bytes()

    def killed(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save_checkpoint(path, STATE)
    assert path.read_bytes() == before
    assert checkpoints.find_last(tmp_path) == path


def test_tidy_keeps_what_is_asked_and_removes_half_written_files(tmp_path: Path) -> None:
    for at in ((1, 0), (2, 0), (2, 5), (3, 0), (3, 4)):
        write(tmp_path, *at)
    half = checkpoints.checkpoint_folder(tmp_path) / ".checkpoint_epoch_00004.pyth.tmp"
    half.write_bytes(b"half")
    checkpoints.clean_up(tmp_path, keep=2)
    names = sorted(path.name for path in checkpoints.checkpoint_folder(tmp_path).iterdir())
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
        checkpoints.read_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        checkpoints.read_checkpoint(path)
    assert not (tmp_path / "run").exists()


def test_bare_weights_are_no_training_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pyth"
    torch.save({"model_state": {}}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        checkpoints.read_checkpoint(path)
