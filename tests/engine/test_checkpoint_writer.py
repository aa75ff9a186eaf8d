"""Checkpoints written in the background of a training."""

from __future__ import annotations

import errno
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slowfast.cli.run import run
from slowfast.config.node import ConfigNode
from slowfast.engine import checkpoints
from slowfast.engine.checkpoint_writer import CheckpointWriter, copy_state
from slowfast.errors import DiskError
from tests.conftest import ROOT, command, environment, run_net, tiny_settings
from tests.warm_start import run_script


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
        assert may_write.wait(20)
        real(path, state)

    monkeypatch.setattr(checkpoints, "save_checkpoint", slow)
    writer, value = CheckpointWriter(), torch.zeros(3)
    with writer:
        for number in (1, 2):
            value += 1
            writer.save(tmp_path / f"{number}", {"w": value}, lambda number=number: order.append(number))
        assert began.wait(20) and not order and not (tmp_path / "1").exists()
        # Memory is bounded: the third waits for the first.
        third = threading.Thread(target=writer.save, args=(tmp_path / "3", {"w": value + 1}))
        third.start()
        third.join(0.05)
        assert third.is_alive()
        may_write.set()
        third.join(20)
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
    killed = run_script(script, words, environment(), timeout=60)
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
