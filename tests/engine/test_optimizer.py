"""Optimizers: parameters with weight decay, and settings of each method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine.optim import OPTIMIZER_REGISTRY, build_optimizer
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
