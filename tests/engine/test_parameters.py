"""Layer-wise and head learning rates, and resuming optimizers saved with other groups."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_settings
from torch import nn

from slowfast.cli.run import run
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine import checkpoints
from slowfast.engine.optim import OPTIMIZER_REGISTRY, build_optimizer, load_optimizer_state, lr_range, set_lr
from slowfast.engine.parameters import find_blocks, lr_scales, parameter_depths
from slowfast.models import build_model
from tests.models.tiny_networks import FORMS, tiny


def config(*overrides: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.ZERO_WD_1D_PARAM", True, *overrides])
    return cfg


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_layers_of_every_network_are_numbered_from_the_input(name: str) -> None:
    model = tiny(name)
    depths = parameter_depths(model)
    assert list(dict.fromkeys(sorted(depth.layer for depth in depths.values()))) == list(
        range(max(depth.layer for depth in depths.values()) + 1)
    )
    layers = [depth.layer for depth in depths.values()]
    assert layers == sorted(layers)  # parameters are registered in the order of depth
    top = [key for key, depth in depths.items() if depth.layer == max(layers)]
    assert all(depth.stage == 0 for key, depth in depths.items() if key in top)


def test_layers_between_and_around_the_blocks() -> None:
    depths = parameter_depths(tiny("MorphMLP"))  # 2, 1, 2 and 1 blocks
    layers = {key: depth.layer for key, depth in depths.items()}
    assert layers["patch_embed1.proj1.weight"] == 0
    assert layers["blocks1.0.norm1.weight"] == 1 and layers["blocks1.1.norm1.weight"] == 2
    assert layers["patch_embed2.proj.weight"] == layers["blocks2.0.norm1.weight"] == 3
    assert layers["blocks4.0.norm1.weight"] == 6
    assert layers["norm.weight"] == layers["head.weight"] == 7


def test_blocks_of_a_network_without_the_hook() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
            self.layer1 = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4)))
            self.body = nn.ModuleDict({"layer2": nn.ModuleList([nn.Sequential(nn.Linear(4, 4))])})
            self.head = nn.Linear(4, 2)

    model = Plain()
    assert find_blocks(model) == [["layer1.0", "layer1.1"], ["body.layer2.0"]]
    assert [depth.layer for depth in parameter_depths(model).values()] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert {depth.layer for depth in parameter_depths(nn.Linear(2, 2)).values()} == {1}


def test_scales_follow_the_formula() -> None:
    scales = lr_scales(tiny("MorphMLP"), layer_decay=0.5, head_lr_mult=10.0)
    assert scales["patch_embed1.proj1.weight"] == 0.5**7
    assert scales["blocks4.0.norm1.weight"] == 0.5
    assert scales["norm.weight"] == 1.0 and scales["head.weight"] == scales["head.bias"] == 10.0


def test_the_schedule_scales_each_group(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny("EAT distilled")
    with caplog.at_level("INFO", "slowfast"):
        optimizer = build_optimizer(config("SOLVER.LAYER_DECAY", 0.8, "SOLVER.HEAD_LR_MULT", 2.0), model)
    set_lr(optimizer, 0.1)
    scales = lr_scales(model, 0.8, 2.0)
    assert rates(optimizer) == {name: 0.1 * scale for name, scale in scales.items()}
    assert lr_range(optimizer) == {"lr_min": 0.1 * 0.8**6, "lr_max": 0.2}
    assert "0.2621" in caplog.text and "cls_token, ..." in caplog.text  # 0.8**6
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert decays["blocks.0.norm1.weight"] == decays["pos_embed"] == 0 and decays["blocks.0.mlp.fc1.weight"] > 0


def test_the_defaults_make_the_groups_of_one_rate() -> None:
    optimizer = build_optimizer(config(), tiny("EAT"))
    assert len(optimizer.param_groups) == 2
    set_lr(optimizer, 0.3)
    assert set(rates(optimizer).values()) == {0.3} and lr_range(optimizer) == {}


def test_a_step_moves_each_layer_by_its_rate() -> None:
    model = tiny("evMLP")
    optimizer = build_optimizer(
        config(
            "SOLVER.OPTIMIZING_METHOD",
            "sgd",
            "SOLVER.LAYER_DECAY",
            0.5,
            "SOLVER.WEIGHT_DECAY",
            0.0,
            "SOLVER.MOMENTUM",
            0.0,
        ),
        model,
    )
    set_lr(optimizer, 1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, scale in lr_scales(model, 0.5, 1.0).items():
        torch.testing.assert_close(before[name] - model.state_dict()[name], torch.full_like(before[name], scale))


@pytest.fixture
def own_optimizer() -> Iterator[str]:
    @OPTIMIZER_REGISTRY.register()
    def own_rmsprop(cfg: ConfigNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM)

    yield "own_rmsprop"
    del OPTIMIZER_REGISTRY._obj_map["own_rmsprop"]


def test_an_optimizer_of_ones_own(own_optimizer: str, kinetics_folder: Path, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(kinetics_folder, tmp_path), "SOLVER.OPTIMIZING_METHOD", own_optimizer])
    cfg.merge_from_list(["SOLVER.BASE_LR", 1e-3, "SOLVER.LAYER_DECAY", 0.9, "TEST.ENABLE", False])
    cfg.merge_from_list(["DATA_LOADER.NUM_WORKERS", 0])
    run(cfg)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["split"] == "train"]
    assert trained and all(row["lr_min"] < row["lr"] == row["lr_max"] for row in trained)
    assert "lr scale" in (tmp_path / "stdout.log").read_text()
    path = checkpoints.find_last(tmp_path)
    assert path is not None
    state = checkpoints.read_checkpoint(path)["optimizer_state"]
    assert all("square_avg" in entry for entry in state["state"].values())


def trained(cfg: ConfigNode) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a network and its optimizer after three steps on random gradients."""
    torch.manual_seed(0)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    for step in range(3):
        step_once(model, optimizer, step)
    return model, optimizer


def step_once(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    set_lr(optimizer, 0.01)
    optimizer.step()


def small(*overrides: object) -> ConfigNode:
    return config(*FORMS["EAT"][1], "MODEL.MODEL_NAME", "EAT", "DATA.TRAIN_CROP_SIZE", 32, *overrides)


def as_before_groups_had_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state as versions without SOLVER.LAYER_DECAY wrote it."""
    state = copy.deepcopy(state)
    for group in state["param_groups"]:
        del group["param_names"], group["lr_scale"]
    return state


@pytest.mark.parametrize("method", ["sgd", "adamw"])
@pytest.mark.parametrize("skip_1d", [True, False])
def test_a_state_of_an_older_version_resumes_bit_for_bit(method: str, skip_1d: bool) -> None:
    cfg = small("SOLVER.OPTIMIZING_METHOD", method, "SOLVER.ZERO_WD_1D_PARAM", skip_1d)
    model, optimizer = trained(cfg)
    old = as_before_groups_had_names(optimizer.state_dict())
    assert len(old["param_groups"]) == (2 if skip_1d else 1)
    again = copy.deepcopy(model)
    resumed = build_optimizer(cfg, again)
    load_optimizer_state(resumed, old, cfg, again)
    step_once(model, optimizer, 9)
    step_once(again, resumed, 9)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("named", [True, False])
def test_a_state_of_one_rate_goes_on_with_several(named: bool) -> None:
    model, optimizer = trained(small())
    state = optimizer.state_dict() if named else as_before_groups_had_names(optimizer.state_dict())
    cfg = small("SOLVER.LAYER_DECAY", 0.7, "SOLVER.WEIGHT_DECAY", 0.2)
    resumed = build_optimizer(cfg, model)
    load_optimizer_state(resumed, state, cfg, model)
    assert len(resumed.param_groups) > 2
    for parameter in model.parameters():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(value, resumed.state[parameter][key])
    assert {group["weight_decay"] for group in resumed.param_groups} == {0.0, 0.2}


def test_a_state_of_other_parameters_is_refused() -> None:
    model, optimizer = trained(small())
    model.blocks[0].requires_grad_(False)
    cfg = small()
    resumed = build_optimizer(cfg, model)
    with pytest.raises(ValueError, match="different parameters were trained: 18 differ, such as blocks.0"):
        load_optimizer_state(resumed, optimizer.state_dict(), cfg, model)
    with pytest.raises(ValueError):
        load_optimizer_state(resumed, as_before_groups_had_names(optimizer.state_dict()), cfg, model)
