"""MODEL.FREEZE_BACKBONE and MODEL.FREEZE: frozen weights stay fixed, under DDP, EMA and gradient checkpointing."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import run_net, tiny_settings
from torch import nn

from slowfast.cli.run import run
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.types import TrainBatch
from slowfast.engine import checkpoints
from slowfast.engine.forward import ClipForward
from slowfast.engine.optim import build_optimizer
from slowfast.engine.parameters import find_frozen, freeze_modes, freeze_parameters, parameter_depths
from slowfast.engine.step import TrainStep
from slowfast.errors import CheckpointError, ConfigError
from slowfast.models import build_model
from slowfast.models.layers import Dropout, DropPath
from slowfast.models.protocol import named_network
from slowfast.models.weights import head_names, is_head
from slowfast.utils.distributed import World
from tests.models.tiny_networks import FORMS, inputs, tiny
from tests.random_weights import randomized

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", sorted(FORMS))
def test_the_head_of_every_network_trains_alone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny(name, MODEL__ACT_CHECKPOINT=True)
    with caplog.at_level("INFO", "slowfast"):
        freeze_parameters(model, backbone=True)
    heads = head_names(model)
    trained = {key for key, p in named_network(model).named_parameters() if p.requires_grad}
    there = [head for head in heads if f"{head}.weight" in model.state_dict()]
    assert there and trained == {f"{head}.{name}" for head in there for name in ("weight", "bias")}
    numbers = sum(dict(named_network(model).named_parameters())[key].numel() for key in trained)
    assert f"{numbers:,} of {sum(p.numel() for p in model.parameters()):,} parameters are trainable" in caplog.text
    model.train()
    freeze_modes(model, probing=True)
    for key, module in named_network(model).named_modules():
        holds_head = key == "" or any(f"{head}.".startswith(f"{key}.") for head in heads)
        assert module.training == holds_head, key
    before = {key: value.clone() for key, value in model.state_dict().items()}
    logits = model(inputs(name, 3))
    torch.testing.assert_close(logits, model.eval()(inputs(name, 3)), rtol=1e-5, atol=1e-6)  # nothing is dropped
    logits.square().sum().backward()
    assert {key for key, p in named_network(model).named_parameters() if p.grad is not None} == trained
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="FREEZE_BACKBONE: Linear has no layer called head"):
        freeze_parameters(nn.Linear(2, 2), backbone=True)


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["patch_embed1"], ["patch_embed1."]),
        (["blocks1.0", "head.bias"], ["blocks1.0.", "head.bias"]),
        (["blocks[13]"], ["blocks1.", "blocks3."]),
        (["*.norm1.*"], None),
        (["stage1"], ["patch_embed1.", "blocks1."]),
        (["stage2", "stage4"], ["patch_embed2.", "blocks2.", "patch_embed4.", "blocks4."]),
    ],
)
def test_layers_and_stages_by_name(names: list[str], frozen: list[str] | None) -> None:
    model = tiny("MorphMLP")
    parameters = [name for name, _ in named_network(model).named_parameters()]
    expected = {n for n in parameters if (".norm1." in n if frozen is None else n.startswith(tuple(frozen)))}
    freeze_parameters(model, backbone=False, names=names)
    assert expected == {name for name, p in named_network(model).named_parameters() if not p.requires_grad}
    assert expected == find_frozen(model, backbone=False, names=names)


def test_both_settings_together() -> None:
    model = tiny("EAT distilled")
    freeze_parameters(model, backbone=True, names=["head_dist"])
    assert {name for name, p in named_network(model).named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize("name", sorted(FORMS))
def test_every_stage_of_every_network_can_be_frozen(name: str) -> None:
    model = tiny(name)
    stages = {depth.stage for depth in parameter_depths(model).values()} - {0}
    assert stages == set(range(1, len(stages) + 1))
    parts = [find_frozen(model, backbone=False, names=[f"stage{stage}"]) for stage in stages]
    assert sum(map(len, parts)) == len(set().union(*parts))  # no parameter is in two groups
    left = {key for key, _ in named_network(model).named_parameters()} - set().union(*parts)
    assert any(is_head(key, head_names(model)) for key in left)


def test_frozen_layers_work_as_in_evaluation_and_others_do_not() -> None:
    model = nn.Sequential(
        OrderedDict(
            first=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
            last=nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
        )
    )
    freeze_parameters(model, backbone=False, names=["first", "last.1.bias"])
    model.train()
    freeze_modes(model, probing=False)
    assert [module.training for module in model.first] == [False] * 3
    assert [module.training for module in model.last] == [True] * 3
    model(torch.randn(8, 4))
    assert not model.first[1].num_batches_tracked and model.last[1].num_batches_tracked == 1


def test_a_name_that_matches_nothing() -> None:
    model = tiny("MorphMLP")
    with pytest.raises(ConfigError, match=r"MODEL.FREEZE: MorphMLP has no .* bloks1. Did you mean blocks1\?"):
        freeze_parameters(model, backbone=False, names=["bloks1"])
    with pytest.raises(ConfigError, match="no layer, parameter or stage stage0. Its stages are stage1 to stage4"):
        freeze_parameters(model, backbone=False, names=["stage0"])
    with pytest.raises(ConfigError, match="every parameter is frozen"):
        freeze_parameters(model, backbone=False, names=["*"])


def settings(data: Path, output: Path, start: Path, *more: object) -> list[object]:
    frozen = ["MODEL.FREEZE_BACKBONE", True, "MODEL.EMA", True, "MODEL.EMA_DECAY", 0.9, "MODEL.ACT_CHECKPOINT", True]
    frozen += ["TRAIN.CHECKPOINT_FILE_PATH", start, "TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 2]
    frozen += ["DATA_LOADER.NUM_WORKERS", 0]
    return [*tiny_settings(data, output), "MORPH.DROP_DEPTH_RATE", 0.5, *frozen, *more]


def config(data: Path, output: Path, *overrides: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(data, output), *overrides])
    return cfg


def last(output: Path) -> checkpoints.State:
    path = checkpoints.find_last(output)
    assert path is not None
    return checkpoints.read_checkpoint(path)


def losses(output: Path) -> list[float]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["split"] == "train"]


def test_runs_keep_the_backbone_whatever_the_processes(kinetics_folder: Path, tmp_path: Path) -> None:
    weights = randomized(build_model(config(kinetics_folder, tmp_path))).state_dict()
    torch.save(weights, tmp_path / "start.pth")
    start = tmp_path / "start.pth"
    run(config(kinetics_folder, tmp_path, *settings(kinetics_folder, tmp_path / "1", start)))
    done = run_net(settings(kinetics_folder, tmp_path / "2", start), processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("136 of") == 1 and "head.weight, head.bias" in done.stdout
    for name in ("1", "2"):
        state = last(tmp_path / name)
        for part in ("model_state", "ema_state"):
            moved = {key for key, value in state[part].items() if not torch.equal(value, weights[key])}
            assert moved == {"head.weight", "head.bias"}
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / "2"), rel=1e-4)
    # Resuming works, and a checkpoint of a frozen run cannot resume a run that is not frozen.
    again = settings(kinetics_folder, tmp_path / "1", start, "SOLVER.MAX_EPOCH", 3)
    run(config(kinetics_folder, tmp_path, *again))
    assert len(losses(tmp_path / "1")) == 6
    with pytest.raises(CheckpointError, match="belongs to another network or optimizer"):
        run(config(kinetics_folder, tmp_path, *again, "MODEL.FREEZE_BACKBONE", False))


def test_a_frozen_stage_keeps_weights_and_statistics(kinetics_folder: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.pth"
    weights = randomized(build_model(config(kinetics_folder, tmp_path))).state_dict()
    torch.save(weights, start)
    more = ["MODEL.FREEZE_BACKBONE", False, "MODEL.FREEZE", ["stage1", "blocks2"]]
    run(config(kinetics_folder, tmp_path, *settings(kinetics_folder, tmp_path / "1", start, *more)))
    state = last(tmp_path / "1")
    for part in ("model_state", "ema_state"):
        kept = {key for key, value in state[part].items() if torch.equal(value, weights[key])}
        frozen = {key for key in weights if key.startswith(("patch_embed1.", "blocks1.", "blocks2."))}
        assert any("running_mean" in key for key in frozen) and frozen <= kept
        assert not any(key.startswith(("patch_embed2.", "blocks3.", "head.")) for key in kept if "num_" not in key)


def test_random_weights_are_frozen_with_a_warning(kinetics_folder: Path, tmp_path: Path) -> None:
    frozen = settings(kinetics_folder, tmp_path, Path(""), "TRAIN.CHECKPOINT_FILE_PATH", "", "SOLVER.MAX_EPOCH", 1)
    run(config(kinetics_folder, tmp_path, *frozen))
    assert "freezes random weights" in (tmp_path / "stdout.log").read_text()


def test_a_step_equals_one_on_fixed_features(kinetics_folder: Path, tmp_path: Path) -> None:
    """The head's gradient is that of a linear classifier on the features of the network in evaluation."""
    cfg = config(kinetics_folder, tmp_path, "MODEL.FREEZE_BACKBONE", True, "MORPH.DROP_DEPTH_RATE", 0.5)
    model = randomized(build_model(cfg))
    freeze_parameters(model, backbone=True)
    forward = ClipForward.from_config(cfg, CPU)
    step = TrainStep(cfg, World(), model, build_optimizer(cfg, model), forward)
    clips = torch.randint(0, 256, (8, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8)
    features: list[torch.Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    with torch.no_grad():
        model.eval()(forward.prepare(clips))
    handle.remove()
    shares = (features[0] @ model.head.weight.T + model.head.bias).softmax(1).detach()
    step(TrainBatch(clips, labels, [], []), 0, 0, 0.0)
    want = (shares - torch.eye(8)).T @ features[0] / 8
    torch.testing.assert_close(model.head.weight.grad, want, rtol=1e-4, atol=1e-6)
    kinds = (nn.modules.batchnorm._BatchNorm, DropPath, Dropout)
    assert not any(module.training for module in model.modules() if isinstance(module, kinds))
