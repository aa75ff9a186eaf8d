"""Optimizers, weight decay and the learning-rate schedule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine.optim import OPTIMIZER_REGISTRY, build_optimizer, build_schedule
from slowfast.engine.parameters import check_no_decay, parameter_groups
from slowfast.errors import ConfigError
from slowfast.models.eat import EAT
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.protocol import named_network


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 2))


def decays(model: nn.Module, **options: object) -> dict[str, float]:
    names = {id(p): name for name, p in named_network(model).named_parameters()}
    groups = parameter_groups(model, **options)  # type: ignore[arg-type]
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


def test_no_decay_for_one_dimension() -> None:
    found = decays(small_network(), weight_decay=0.05, norm_decay=0.3, skip_1d=True)
    assert {name for name, decay in found.items() if decay} == {"0.weight", "4.weight"}


def test_batch_norm_has_its_own_decay() -> None:
    found = decays(small_network(), weight_decay=0.05, norm_decay=0.0, skip_1d=False)
    assert {name for name, decay in found.items() if not decay} == {"1.weight", "1.bias"}


def test_frozen_parameters_are_left_out() -> None:
    model = small_network()
    model[0].requires_grad_(False)
    assert "0.weight" not in decays(model, weight_decay=0.05, norm_decay=0.0, skip_1d=True)


@pytest.mark.parametrize("method", sorted(name for name, _ in OPTIMIZER_REGISTRY))
def test_each_method_lowers_a_loss(method: str) -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD, cfg.SOLVER.BASE_LR = method, 0.05
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(cfg, model)
    x, y = torch.randn(16, 3), torch.randn(16, 1)
    losses = []
    for _ in range(10):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_unknown_method() -> None:
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZING_METHOD = "lion"
    with pytest.raises(ConfigError, match="OPTIMIZING_METHOD: unknown value 'lion'.*adamw"):
        build_optimizer(cfg, nn.Linear(1, 1))


def test_a_name_is_registered_once() -> None:
    def sgd(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        raise NotImplementedError

    with pytest.raises(ConfigError, match="OPTIMIZER registry: the name .sgd. of .* taken by .*optim.sgd"):
        OPTIMIZER_REGISTRY.register(sgd)


def test_a_networks_own_exceptions_hold_with_the_one_dimensional_ones() -> None:
    eat = EAT(image_size=32, patch_size=8, layers=1, embed_dim=16, heads=4, distilled=True)
    for model in (eat, FramewiseVideo(eat)):
        found = decays(model, weight_decay=0.05, norm_decay=0.0, skip_1d=True)
        spared = {name for name, p in named_network(model).named_parameters() if p.ndim > 1 and not found[name]}
        assert spared == {"cls_token", "dist_token", "pos_embed"}
        assert decays(model, weight_decay=0.05, norm_decay=0.0, skip_1d=False)["pos_embed"] == 0.05


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("0.weight", {"0.weight"}),
        ("bias", {"0.bias", "1.bias", "3.bias", "4.bias"}),
        ("*.bias", {"0.bias", "1.bias", "3.bias", "4.bias"}),
        ("[03].*", {"0.weight", "0.bias", "3.weight", "3.bias"}),
    ],
)
def test_named_parameters_have_no_decay(name: str, spared: set[str]) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.WEIGHT_DECAY", 0.05, "BN.WEIGHT_DECAY", 0.05, "SOLVER.NO_WD_PARAMS", [name]])
    model = small_network()
    names = {id(p): name for name, p in named_network(model).named_parameters()}
    groups = build_optimizer(cfg, model).param_groups
    assert {names[id(p)] for group in groups for p in group["params"] if not group["weight_decay"]} == spared


def test_a_name_that_no_parameter_has() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.NO_WD_PARAMS", "[4.bias,4.wieght]"])
    with pytest.raises(ConfigError, match="no parameter 4.wieght. Did you mean 4.weight"):
        build_optimizer(cfg, small_network())
    with pytest.raises(ConfigError, match="no parameter eight"):  # ends at a dot
        check_no_decay(small_network(), ["eight"])


@pytest.mark.parametrize(("nesterov", "momentum"), [(True, 0.0), (False, 0.0), (True, 0.9)])
def test_sgd_with_and_without_momentum(nesterov: bool, momentum: float) -> None:
    """Two steps on the loss p**2 / 2 from p = 1, whose gradient is p, against the formulas."""
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.NESTEROV", nesterov, "SOLVER.MOMENTUM", momentum, "SOLVER.BASE_LR", 0.1])
    cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.WEIGHT_DECAY", 0.0])
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = build_optimizer(cfg, model)
    expected, buffer = 1.0, 0.0
    for _ in range(2):
        model.weight.grad = model.weight.detach().clone()
        optimizer.step()
        buffer = momentum * buffer + expected
        expected -= 0.1 * (expected + momentum * buffer if nesterov else buffer)
    assert model.weight.item() == pytest.approx(expected)


def config(**solver: object):
    cfg = get_cfg()
    for key, value in solver.items():
        setattr(cfg.SOLVER, key, value)
    return cfg


@given(st.floats(0, 60))
def test_cosine_after_warmup(epoch: float) -> None:
    cfg = config(
        BASE_LR=2e-4,
        COSINE_END_LR=1e-6,
        WARMUP_START_LR=1e-6,
        WARMUP_EPOCHS=10.0,
        MAX_EPOCH=60,
        COSINE_AFTER_WARMUP=True,
    )
    cfg.SOLVER.COSINE_AFTER_WARMUP = True
    if epoch < 10:
        expected = 1e-6 + (2e-4 - 1e-6) * epoch / 10
    else:
        expected = 1e-6 + (2e-4 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (epoch - 10) / 50))
    assert build_schedule(cfg)(epoch) == pytest.approx(expected, rel=1e-9)


def test_warmup_meets_a_cosine_that_started_at_epoch_0() -> None:
    cfg = config(BASE_LR=1.0, COSINE_END_LR=0.0, WARMUP_START_LR=0.0, WARMUP_EPOCHS=5.0, MAX_EPOCH=10)
    schedule = build_schedule(cfg)
    assert schedule(0) == 0
    assert schedule(5 - 1e-9) == pytest.approx(schedule(5), rel=1e-6)
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(10) == pytest.approx(0)


def test_steps_hold_from_their_start() -> None:
    cfg = config(LR_POLICY="steps_with_relative_lrs", BASE_LR=0.1, STEPS=[0, 30, 60], LRS=[1, 0.1, 0.01], MAX_EPOCH=90)
    schedule = build_schedule(cfg)
    assert [schedule(e) for e in (0, 29.99, 30, 59.9, 60, 89)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_rates_scale_with_shards_only_when_asked() -> None:
    cfg = config(BASE_LR=0.1, COSINE_END_LR=0.01, MAX_EPOCH=10)
    cfg.NUM_SHARDS = 4
    assert build_schedule(cfg)(0) == pytest.approx(0.1)
    cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS = True
    assert build_schedule(cfg)(0) == pytest.approx(0.4)
    assert build_schedule(cfg)(10) == pytest.approx(0.04)


def test_unknown_policy_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER\.LR_POLICY: unknown value 'cosinus'.*cosine"):
        build_schedule(config(LR_POLICY="cosinus"))


def test_the_cooldown_keeps_the_last_rate() -> None:
    cfg = config(BASE_LR=1.0, COSINE_END_LR=0.1, MAX_EPOCH=30, COOLDOWN_EPOCHS=10.0)
    schedule = build_schedule(cfg)
    assert schedule(10) == pytest.approx(0.55)
    assert [schedule(epoch) for epoch in (20, 25, 30)] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # epoch: rate, by the authors' formulas
        ("CONVMLP_S", {0: 1e-4, 5: 1e-5 + 49e-5 * (1 + math.cos(math.pi * 5 / 300)) / 2, 300: 1e-5, 305: 1e-5}),
        ("CONVMLP_S_PADDLEVIT", {0: 2e-6, 5: 8e-5, 152.5: 5e-5, 300: 2e-5}),
        ("EVMLP", {0: 1e-3, 5: 0.1, 152.5: (0.1 + 1e-5) / 2, 300: 1e-5}),
        ("EAT_TI", {0: 1e-6, 150: (1e-3 + 1e-5) / 2, 300: 1e-5}),
    ],
)
def test_rates_of_the_published_image_recipes(name: str, rates: dict[float, float], tmp_path: Path) -> None:
    cfg = load_config(Path(__file__).parents[2] / f"configs/ImageNet/{name}.yaml", ["OUTPUT_DIR", tmp_path])
    schedule = build_schedule(cfg)
    assert [schedule(epoch) for epoch in rates] == pytest.approx(list(rates.values()), rel=1e-9)
