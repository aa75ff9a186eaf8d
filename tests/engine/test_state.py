"""Selection of the tested checkpoint, early stopping, and class names in checkpoints."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.cli.run import run
from slowfast.config.node import ConfigNode
from slowfast.engine.checkpoints import checkpoint_folder, find_checkpoints
from slowfast.engine.meters import EarlyStop
from slowfast.engine.optim import build_optimizer
from slowfast.engine.state import Position, RunState
from slowfast.engine.test import class_names_of, network_to_test
from slowfast.errors import CheckpointError, ConfigError
from slowfast.inference.predictor import Predictor
from slowfast.models import build_model


@given(st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 6), st.integers(1, 4))
def test_the_epoch_of_the_end_against_a_plain_loop(metrics: list[int | None], patience: int, period: int) -> None:
    stop = EarlyStop(patience, period, len(metrics))
    ends, at = None, Position()
    best, best_epoch, expected = -1, 0, None
    for epoch, metric in enumerate(metrics, start=1):
        if epoch % period == 0:
            if metric is not None and metric > best:
                best, best_epoch = metric, epoch
            if patience and expected is None and epoch - best_epoch >= patience:
                expected = epoch
        at = Position(epoch, 0, None if best < 0 else best, best_epoch)
        # A resumed run must not stop within the next epoch: whether to stop is decided at the end of an epoch.
        assert not stop.is_due(Position(epoch, 1, at.best_metric, best_epoch))
        if ends is None and stop.is_due(at):
            ends = epoch
    assert ends == expected


def results(cfg: ConfigNode) -> dict[str, object]:
    found: dict[str, object] = json.loads((Path(cfg.OUTPUT_DIR) / "test_results.json").read_text())
    return found


@pytest.mark.slow
def test_a_run_that_does_not_improve_ends_and_its_best_weights_are_tested(tiny_cfg: ConfigNode) -> None:
    # With such a learning rate, only the statistics of batch normalization change.
    tiny_cfg.merge_from_list(["SOLVER.BASE_LR", 1e-12, "SOLVER.MAX_EPOCH", 9, "DATA_LOADER.NUM_WORKERS", 0])
    tiny_cfg.merge_from_list(["TRAIN.EARLY_STOP", 2, "TRAIN.CHECKPOINT_PERIOD", 9, "TEST.CHECKPOINT", "best"])
    output = Path(tiny_cfg.OUTPUT_DIR)
    run(tiny_cfg)
    rows = (output / "metrics.jsonl").read_text()
    top1 = [row["top1"] for row in map(json.loads, rows.splitlines()) if row["split"] == "val"]
    best, end = top1.index(max(top1)) + 1, len(top1)
    assert end < 9 and end - best == 2
    message = f"Training ends early, at epoch {end} of 9: no better validation top-1 for 2 epochs (TRAIN.EARLY_STOP). "
    log = (output / "stdout.log").read_text()
    assert log.count(message + f"Best: {max(top1):.2f} % at epoch {best}") == 1
    assert f"checkpoint_best.pyth (best validation, epoch {best})" in log
    assert [path.name for path in find_checkpoints(output)] == [f"checkpoint_epoch_{end:05d}.pyth"]

    path = checkpoint_folder(output) / "checkpoint_best.pyth"
    found = results(tiny_cfg)
    assert (found["checkpoint"], found["checkpoint_choice"], found["checkpoint_epoch"]) == (str(path), "best", best)
    assert found["checkpoint_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["dataset"], found["model"]) == (tiny_cfg.TEST.DATASET, tiny_cfg.MODEL.MODEL_NAME)
    assert found["device"] and datetime.fromisoformat(str(found["date"])).tzinfo is not None

    run(tiny_cfg)  # does not train again
    assert (output / "metrics.jsonl").read_text() == rows
    tiny_cfg.merge_from_list(["TRAIN.ENABLE", False, "TEST.CHECKPOINT", "last"])
    run(tiny_cfg)
    found = results(tiny_cfg)
    assert str(found["checkpoint"]).endswith(f"_{end:05d}.pyth")
    assert (found["checkpoint_choice"], found["checkpoint_epoch"]) == ("last", end)


def test_a_best_checkpoint_that_does_not_exist(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.merge_from_list(["TRAIN.ENABLE", False, "TEST.CHECKPOINT", "best", "DATA_LOADER.NUM_WORKERS", 0])
    with pytest.raises(CheckpointError, match=r"TEST.CHECKPOINT best: .*checkpoint_best.pyth does not exist. Set"):
        run(tiny_cfg)


def test_a_task_without_validation_has_no_early_stop(tiny_cfg: ConfigNode) -> None:
    from slowfast.engine.tasks import check_task

    tiny_cfg.merge_from_list(["MODEL.TASK", "pretraining", "MODEL.MODEL_NAME", "Event2Vec", "TEST.ENABLE", False])
    tiny_cfg.merge_from_list(["TRAIN.EARLY_STOP", 3, "EVENT2VEC.MASK_RATIO", 0.5])
    with pytest.raises(ConfigError, match="TRAIN.EARLY_STOP: MODEL.TASK pretraining has no validation"):
        check_task(tiny_cfg)


CPU, NAMES = torch.device("cpu"), [f"class {label}" for label in range(8)]


def checkpoint(cfg: ConfigNode, path: Path, **change: Any) -> Path:
    """Write a checkpoint of random weights with class names."""
    model = build_model(cfg)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = RunState(cfg, model, build_optimizer(cfg, model), scaler, None, 1, NAMES).pack() | change
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


def names(cfg: ConfigNode, path: Path, data: str = "") -> list[str]:
    cfg.merge_from_list(["TEST.CHECKPOINT_FILE_PATH", str(path), "DATA.PATH_TO_DATA_DIR", data])
    return class_names_of(cfg, network_to_test(cfg, CPU))


def test_they_are_used_without_the_dataset_only(tiny_cfg: ConfigNode, tmp_path: Path) -> None:
    data = tiny_cfg.DATA.PATH_TO_DATA_DIR
    path = checkpoint(tiny_cfg, tmp_path / "a.pyth")
    assert names(tiny_cfg, path) == NAMES
    assert Predictor.from_config(tiny_cfg).names == NAMES
    of_dataset = (Path(data) / "categories.txt").read_text().split()[::2]
    assert names(tiny_cfg, path, data) == of_dataset and of_dataset != NAMES


@pytest.mark.parametrize("found", [None, NAMES[:7], [*NAMES[:7], 7], "eight of them", {"a": "b"}])
def test_older_checkpoints_and_unusable_names(tiny_cfg: ConfigNode, tmp_path: Path, found: Any) -> None:
    path = checkpoint(tiny_cfg, tmp_path / "a.pyth", class_names=found)
    assert names(tiny_cfg, path) == [str(label) for label in range(8)]
    network_to_test(tiny_cfg, CPU)


def test_exported_weights_hand_them_on(tiny_cfg: ConfigNode, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="needs the extra safetensors")
    from slowfast.inference.export import export_weights

    tiny_cfg.merge_from_list(["TEST.CHECKPOINT_FILE_PATH", str(checkpoint(tiny_cfg, tmp_path / "a.pyth"))])
    tiny_cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", ""])
    export_weights(tiny_cfg, tmp_path / "a.safetensors")
    assert names(tiny_cfg, tmp_path / "a.safetensors") == NAMES
