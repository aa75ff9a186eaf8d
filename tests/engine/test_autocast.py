"""Dtype of autocast: as configured, or float32 on CPUs where it would be several times slower."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.forward import AMP_DTYPES, ClipForward
from slowfast.engine.step import TrainStep
from slowfast.utils import private_ops
from slowfast.utils.distributed import World
from slowfast.utils.logging import warn_once

CPU = torch.device("cpu")


def forward(cfg: ConfigNode, dtype: str, where: torch.device = CPU, mixed: bool = True) -> ClipForward:
    cfg.merge_from_list(["TRAIN.MIXED_PRECISION", mixed, "TRAIN.AMP_DTYPE", dtype])
    return ClipForward.from_config(cfg, where)


def supported(monkeypatch: pytest.MonkeyPatch, bfloat16: bool, float16: bool) -> None:
    """Imitate a CPU that has or lacks the instructions."""
    monkeypatch.setattr(torch.ops.mkldnn, private_ops.CPU_QUERIES[torch.bfloat16], lambda: bfloat16)
    monkeypatch.setattr(torch.ops.mkldnn, private_ops.CPU_QUERIES[torch.float16], lambda: float16)
    warn_once.cache_clear()


@pytest.mark.parametrize("bfloat16, float16", [(True, True), (True, False), (False, False)])
def test_only_dtypes_with_instructions_are_used_on_a_cpu(
    tiny_cfg: ConfigNode,
    bfloat16: bool,
    float16: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    supported(monkeypatch, bfloat16, float16)
    with caplog.at_level(logging.WARNING, "slowfast"):
        for name, has in (("bfloat16", bfloat16), ("float16", float16)):
            caplog.clear()
            for _ in range(3):  # training, validation, test
                found = forward(tiny_cfg, name)
                assert found.amp_dtype == (AMP_DTYPES[name] if has else None)
                with found.autocast():
                    dtype = nn.Linear(2, 2)(torch.ones(1, 2)).dtype
                assert dtype == (AMP_DTYPES[name] if has else torch.float32)
            messages = [record.getMessage() for record in caplog.records]
            assert len(messages) == (not has)
            assert all(f"TRAIN.AMP_DTYPE {name}" in line and "Running in float32" in line for line in messages)


@pytest.mark.parametrize("name", AMP_DTYPES)
def test_a_gpu_and_float32_ask_nothing_of_the_cpu(
    tiny_cfg: ConfigNode, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supported(monkeypatch, False, False)
    assert forward(tiny_cfg, name, torch.device("cuda")).amp_dtype == AMP_DTYPES[name]
    assert forward(tiny_cfg, name, mixed=False).amp_dtype is None
    assert not caplog.records


@pytest.mark.parametrize("has", [True, False])
def test_losses_are_scaled_for_float16_alone(tiny_cfg: ConfigNode, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    supported(monkeypatch, True, has)
    model = nn.Linear(2, 2)
    for name in AMP_DTYPES:
        found = forward(tiny_cfg, name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = TrainStep(tiny_cfg, World(), model, optimizer, found)
        assert step.scaler.is_enabled() == (has and name == "float16")
