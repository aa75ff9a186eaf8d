"""Checkpoint files: complete or absent, found in order, safe to read."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import resource
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slowfast.cli.run import run
from slowfast.config.node import ConfigNode
from slowfast.engine import checkpoints
from slowfast.engine.checkpoints import CheckpointWriter, copy_state
from slowfast.errors import CheckpointError, DamagedFileError, DiskError
from tests.conftest import ROOT, command, environment, run_net, tiny_settings
from tests.warm_start import run_script

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


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with tied weights, and an optimizer with state."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def content(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_a_copy_has_the_same_bytes_and_keeps_them() -> None:
    model, optimizer = trained()
    base = torch.arange(6.0)
    state = {"model_state": model.state_dict(), "optimizer_state": optimizer.state_dict(), "epoch": 3}
    state |= {"views": [base[1:3], base.view(2, 3).t()], "empty": (torch.empty(0), torch.empty(0, 2)), "none": None}
    before = content(state)
    copied = copy_state(state)
    assert content(copied) == before
    with torch.no_grad():
        model[0].weight += 1
    optimizer.step()
    base.zero_()
    assert content(copied) == before != content(state)


def test_training_goes_on_while_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, may_write, began = checkpoints.save_checkpoint, threading.Event(), threading.Event()
    order = []

    def slow(path: Path, state: dict[str, Any]) -> None:
        began.set()
        assert may_write.wait(120)
        real(path, state)

    monkeypatch.setattr(checkpoints, "save_checkpoint", slow)
    writer, value = CheckpointWriter(), torch.zeros(3)
    with writer:
        for number in (1, 2):
            value += 1
            writer.save(tmp_path / f"{number}", {"w": value}, lambda number=number: order.append(number))
        assert began.wait(120) and not order and not (tmp_path / "1").exists()
        # Memory is bounded: the third waits for the first.
        third = threading.Thread(target=writer.save, args=(tmp_path / "3", {"w": value + 1}))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        may_write.set()
        third.join(120)
        assert not third.is_alive()
    assert order == [1, 2]
    assert [torch.load(tmp_path / str(number))["w"][0].item() for number in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("in_background", [True, False])
def test_a_full_disk_is_reported_and_the_old_file_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_background: bool
) -> None:
    writer, path = CheckpointWriter(in_background), tmp_path / "c.pyth"
    writer.save(path, {"w": torch.ones(1)})
    writer.wait()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(DiskError, match="disk of OUTPUT_DIR .* is full"):
            writer.save(path, {"w": torch.zeros(1)})
            writer.wait()
    assert not writer.failed and torch.load(path)["w"].item() == 1 and [*tmp_path.iterdir()] == [path]
    with pytest.raises(KeyError), CheckpointWriter() as other:
        other.save(path, {"w": torch.full((1,), 2.0)})
        raise KeyError  # the error that is raised; the file is complete nevertheless
    assert torch.load(path)["w"].item() == 2


@pytest.fixture
def cfg(tiny_cfg: ConfigNode) -> ConfigNode:
    tiny_cfg.merge_from_list(["TEST.ENABLE", False, "DATA_LOADER.NUM_WORKERS", 0])
    return tiny_cfg


@pytest.mark.slow
def test_a_failed_write_ends_the_training_soon(cfg: ConfigNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, state: object) -> None:
        raise DiskError(f"Cannot write {path}: the disk is full", errno.ENOSPC)

    monkeypatch.setattr(checkpoints, "save_checkpoint", full)
    cfg.merge_from_list(["SOLVER.MAX_EPOCH", 1000, "TRAIN.CHECKPOINT_PERIOD", 1, "TRAIN.EVAL_PERIOD", 1000])
    with pytest.raises(DiskError, match="the disk is full"):
        run(cfg)
    rows = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()]
    assert 2 <= len(rows) <= 5  # not at the next checkpoint, after two more


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(kinetics_folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the file of epoch 2, while epoch 3 has begun: resumed from epoch 1, to the same end."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import io, os, runpy, signal, sys, time\n"
        "from pathlib import Path\n"
        "import torch\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "real, log = torch.save, Path(sys.argv[-1]) / 'metrics.jsonl'\n"
        "def save(state, file):\n"
        "    if state.get('epoch') != 2:\n"
        "        return real(state, file)\n"
        "    whole = io.BytesIO()\n"
        "    real(state, whole)\n"
        "    file.write(whole.getvalue()[:len(whole.getvalue()) // 2])\n"
        "    while '\"step\": 5' not in log.read_text(): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = save\n"
        f"runpy.run_path({str(ROOT / 'tools' / 'run_net.py')!r}, run_name='__main__')\n"
    )
    settings = [*tiny_settings(kinetics_folder, tmp_path / "out"), "TEST.ENABLE", False, "TRAIN.EVAL_PERIOD", 3]
    words = [*command(settings)[2:], "OUTPUT_DIR", str(tmp_path / "out")]
    killed = run_script(script, words, environment(), timeout=180)
    assert killed.returncode == -9, killed.stderr
    folder = checkpoints.checkpoint_folder(tmp_path / "out")
    assert [path.name for path in folder.glob("*.pyth")] == ["checkpoint_epoch_00001.pyth"]
    assert len(list(folder.glob(".*.part"))) == 1
    resumed = run_net(settings)
    assert resumed.returncode == 0 and "checkpoint_epoch_00001.pyth: epoch 2, step 0" in resumed.stdout, resumed.stderr
    assert not list(folder.glob(".*.part"))
    whole = run_net([*settings, "OUTPUT_DIR", tmp_path / "whole", "TRAIN.CHECKPOINT_ASYNC", False])
    assert whole.returncode == 0, whole.stderr
    ends = [checkpoints.read_last(tmp_path / name) for name in ("out", "whole")]
    one, other = (end[1]["model_state"] for end in ends if end is not None)
    assert all(torch.equal(one[key], other[key]) for key in other)
