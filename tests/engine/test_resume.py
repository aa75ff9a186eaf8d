"""Resuming: the checkpoint that a run resumes from, and files that must not be resumed."""

from __future__ import annotations

import resource
import shutil
import socket
from pathlib import Path

import pytest
import torch

from slowfast.cli.run import run
from slowfast.config.node import ConfigNode
from slowfast.engine.checkpoints import find_checkpoints, find_last, read_checkpoint
from slowfast.errors import CheckpointError, ConfigError, DiskError
from slowfast.models import build_model
from slowfast.utils.checkpoint import load_test_checkpoint
from slowfast.utils.locks import TRAINING, exclusive_lock
from tests.conftest import run_net, tiny_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def cfg(tiny_cfg: ConfigNode) -> ConfigNode:
    """One epoch of training."""
    tiny_cfg.merge_from_list(["TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 1, "DATA_LOADER.NUM_WORKERS", 0])
    return tiny_cfg


def changed(cfg: ConfigNode, *change: object) -> ConfigNode:
    cfg.merge_from_list(list(change))
    return cfg


def test_a_run_that_starts_anew_is_not_taken_for_an_older_one(cfg: ConfigNode) -> None:
    run(changed(cfg, "TRAIN.AUTO_RESUME", False))
    with pytest.raises(
        ConfigError, match="TRAIN.AUTO_RESUME is False, .*checkpoint_epoch_00001.pyth, a checkpoint of another run"
    ):
        run(changed(cfg, "SOLVER.MAX_EPOCH", 2))
    assert len(find_checkpoints(Path(cfg.OUTPUT_DIR))) == 1
    run(changed(cfg, "TRAIN.AUTO_RESUME", True))
    assert len(find_checkpoints(Path(cfg.OUTPUT_DIR))) == 2


def test_a_finished_training_is_nothing_to_go_on_from(cfg: ConfigNode, tmp_path: Path) -> None:
    run(cfg)
    done = find_last(cfg.OUTPUT_DIR)
    again = changed(cfg, "OUTPUT_DIR", str(tmp_path / "again"), "TRAIN.CHECKPOINT_FILE_PATH", str(done))
    with pytest.raises(CheckpointError, match=r"SOLVER.MAX_EPOCH 1\)\. .* set TRAIN.CHECKPOINT_EPOCH_RESET True"):
        run(again)
    run(changed(again, "TRAIN.CHECKPOINT_EPOCH_RESET", True))
    assert find_last(again.OUTPUT_DIR) is not None


def test_an_optimizer_goes_on_as_the_config_says(cfg: ConfigNode) -> None:
    run(changed(cfg, "SOLVER.WEIGHT_DECAY", 0.5))
    for other in ("adam", "sgd"):
        with pytest.raises(CheckpointError, match="SOLVER.OPTIMIZING_METHOD was adamw"):
            run(changed(cfg, "SOLVER.MAX_EPOCH", 2, "SOLVER.OPTIMIZING_METHOD", other))
    run(changed(cfg, "SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.BETAS", "[0.8,0.9]"))
    run(changed(cfg, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MAX_EPOCH", 3))
    run(changed(cfg, "SOLVER.WEIGHT_DECAY", 0.25, "SOLVER.MAX_EPOCH", 4))
    last = find_last(cfg.OUTPUT_DIR)
    assert last is not None
    groups = read_checkpoint(last)["optimizer_state"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.25, 0.0}
    assert all(tuple(group["betas"]) == (0.8, 0.9) for group in groups)


def flip(path: Path) -> bytes:
    """Flip a bit in the middle of the file; returns what was there."""
    before = path.read_bytes()
    data = bytearray(before)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return before


def test_a_damaged_last_checkpoint_costs_an_epoch_and_nothing_else(
    cfg: ConfigNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(changed(cfg, "SOLVER.MAX_EPOCH", 2))
    output = Path(cfg.OUTPUT_DIR)
    last = find_last(output)
    assert last is not None and last.name == "checkpoint_epoch_00002.pyth"
    undamaged, best = flip(last), read_checkpoint(last.with_name("checkpoint_epoch_00001.pyth"))["model_state"]
    (output / f".metrics.jsonl.{socket.gethostname()}-999999999.part").touch()
    (last.parent / ".checkpoint_best.pyth.elsewhere-1.part").touch()
    (last.parent / ".checkpoint_best.pyth.tmp").touch()

    tested = changed(cfg.clone(), "TEST.CHECKPOINT_FILE_PATH", "")
    model = build_model(tested)
    load_test_checkpoint(tested, model)  # the checkpoint before the damaged one
    assert all(torch.equal(value, best[key]) for key, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=f"{last} is damaged: the checksum"):
        load_test_checkpoint(changed(tested, "TEST.CHECKPOINT_FILE_PATH", str(last)), model)

    run(cfg)
    log = (output / "stdout.log").read_text()
    assert "checkpoint_epoch_00001.pyth: epoch 2, step 0" in log
    again = read_checkpoint(last)["model_state"]
    last.write_bytes(undamaged)
    assert all(torch.equal(value, again[key]) for key, value in read_checkpoint(last)["model_state"].items())
    assert not list(output.rglob(".*.part")) and not list(output.rglob(".*.tmp"))

    for path in find_checkpoints(output):
        flip(path)
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        run(cfg)


def test_a_full_disk_ends_a_training_with_one_message_and_its_checkpoints(cfg: ConfigNode) -> None:
    run(changed(cfg, "TENSORBOARD.ENABLE", True, "DATA_LOADER.DRAW_SAMPLES", 0))
    output = Path(cfg.OUTPUT_DIR)
    last = find_last(output)
    assert last is not None
    before = last.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (len(before) - 70_000, 100):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DiskError, match=f"Cannot write {output}"):
                run(changed(cfg, "SOLVER.MAX_EPOCH", 2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert find_last(output) == last and last.read_bytes() == before
        assert not list(output.rglob(".*.part"))
    run(cfg)
    assert len(find_checkpoints(output)) == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_of_too_many_broken_videos_ends(kinetics_folder: Path, tmp_path: Path, processes: int) -> None:
    data = tmp_path / "data"
    shutil.copytree(kinetics_folder, data)
    broken = sorted(data.rglob("train_*.mp4"))[:8]
    for video in broken:
        video.write_bytes(b"x")
    done = run_net([*tiny_settings(data, tmp_path / "out"), "DATA.MAX_FAILED", 0.1], processes, timeout=240)
    assert len(broken) == 8 and done.returncode == 2
    assert "of 16 training videos are unreadable (limit: 3, DATA.MAX_FAILED)" in done.stderr


def test_a_folder_that_cannot_be_claimed_is_told(tmp_path: Path) -> None:
    (tmp_path / TRAINING).mkdir()
    message = r"OUTPUT_DIR .* cannot be written to: is a directory"
    with pytest.raises(ConfigError, match=message), exclusive_lock(tmp_path, TRAINING):
        pass


def test_one_run_trains_in_a_folder_at_a_time(kinetics_folder: Path, tmp_path: Path) -> None:
    with exclusive_lock(tmp_path, TRAINING):
        done = run_net(tiny_settings(kinetics_folder, tmp_path))
        assert done.returncode == 2 and done.stderr.startswith(f"error: OUTPUT_DIR {tmp_path}: another run")
        assert not (tmp_path / "config.yaml").exists()
    done = run_net([*tiny_settings(kinetics_folder, tmp_path), "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False])
    assert done.returncode == 0, done.stderr
