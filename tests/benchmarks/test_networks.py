"""Benchmark of all networks: the selected configs, and all measurements of a small network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.main import parse
from benchmarks.networks import (
    CONVOLUTIONS,
    DEPTHWISE,
    KINDS,
    LINEAR,
    batch_of,
    kind_of,
    measure_networks,
    networks_table,
    one_config_per_model,
    time_by_kind,
)
from slowfast.cli.model_table import published_configs
from slowfast.cli.setup import load_config
from slowfast.errors import UserError
from slowfast.models import MODEL_REGISTRY
from slowfast.models.protocol import EVENTS
from slowfast.utils.machine import has_fast_matmul

SETTING = """# Net-S, 32 x 32, Data-1 (0.1 M parameters, 0.1 GMACs an image).
# Expected: unknown.
# Weights: none
# License of the weights: -
# Verified here: nothing
TRAIN: {DATASET: imagenet}
TEST: {DATASET: imagenet, NUM_ENSEMBLE_VIEWS: 1, NUM_SPATIAL_CROPS: 1}
DATA: {NUM_FRAMES: 1, TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}
MODEL: {MODEL_NAME: ConvMLP, NUM_CLASSES: 5}
CONVMLP: {LAYERS: [1, 1, 1], EMBED_DIMS: [16, 16, 16], CONV_DIM: 8, CONV_LAYERS: 1}
NUM_GPUS: 0
"""


def test_each_network_of_images_or_clips_is_measured_once() -> None:
    chosen = one_config_per_model(published_configs())
    assert {"K400_MLP_S16x4", "K400_MLP_B32x4", "CONVMLP_L", "EAT_TI_384", "EVMLP", "MORPHMLP_B"} <= chosen.keys()
    assert not {"SSV1_MLP_S16", "SSV2_MLP_B32", "EVMLP_DIST"} & chosen.keys()
    measured = {MODEL_REGISTRY.get(load_config(path).MODEL.MODEL_NAME) for path in chosen.values()}
    assert measured == {network for _, network in MODEL_REGISTRY if network.input_kind != EVENTS}


def test_batches() -> None:
    chosen = one_config_per_model(published_configs())
    found = {name: batch_of(load_config(chosen[name])) for name in ("EVMLP", "K400_MLP_S16x4", "K400_MLP_S32x4")}
    assert found == {"EVMLP": 8, "K400_MLP_S16x4": 2, "K400_MLP_S32x4": 1}


def test_every_figure_is_there(tmp_path: Path) -> None:
    path = tmp_path / "SMALL.yaml"
    path.write_text(SETTING)
    (measurements,) = measure_networks(torch.device("cpu"), 1, [path, path], side=32, shares=True)
    assert {measurement.group for measurement in measurements} == {"networks, SMALL"}
    assert all(math.isfinite(measurement.value) and measurement.value > 0 for measurement in measurements)
    named = {measurement.name: measurement for measurement in measurements}
    assert named["float32, forward"].unit == "views/s, batch 8"
    kinds = {name: measurement.value for name, measurement in named.items() if name in KINDS}
    assert {CONVOLUTIONS, DEPTHWISE, LINEAR} <= kinds.keys() and sum(kinds.values()) == pytest.approx(100)
    row = networks_table(measurements).splitlines()[-1].split()
    assert row[:2] == ["SMALL", "8"] and "%" in row
    assert (row[-1] == "x") == has_fast_matmul(torch.bfloat16, torch.device("cpu"))


def test_kinds_of_work() -> None:
    assert kind_of("aten::mkldnn_convolution", [[1, 8, 4, 4], [8, 1, 3, 3], [8]]) == DEPTHWISE
    assert kind_of("aten::mkldnn_convolution", [[1, 8, 4, 4], [8, 8, 3, 3], [8]]) == CONVOLUTIONS
    assert kind_of("mkldnn::_linear_pointwise", [[1, 8], [8, 8]]) == LINEAR
    layer = nn.Linear(64, 64)
    kinds = dict(time_by_kind(lambda: layer(torch.ones(8, 64))))
    assert sum(kinds.values()) == pytest.approx(1) and LINEAR in kinds


def test_it_is_measured_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["networks", "--profile"]).parts == ["networks"]
    for line in ("networks load", "networks NUM_GPUS 0", "events load", "events NUM_GPUS 0"):
        with pytest.raises(UserError, match=f"{line.split()[0]} (must be run alone|takes no overrides)"):
            parse(line.split())
