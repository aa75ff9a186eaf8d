"""Class names in checkpoints: used without the dataset, never instead of the dataset's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slowfast.config.node import ConfigNode
from slowfast.engine.optim import build_optimizer
from slowfast.engine.state import RunState
from slowfast.engine.test import class_names_of, network_to_test
from slowfast.inference.predictor import Predictor
from slowfast.models import build_model

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
