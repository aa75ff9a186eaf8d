"""Autocast, channels-last weights and compilation: results of the plain forward pass, and no effect on checkpoints."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from slowfast.cli.run import run
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine import forward
from slowfast.engine.checkpoints import checkpoint_folder, find_last, read_checkpoint
from slowfast.engine.forward import (
    AMP_DTYPES,
    ClipForward,
    CompiledForTest,
    check_channels_last,
    check_compile,
    use_channels_last,
)
from slowfast.engine.meters import RANGES, StepProfiler, named_range
from slowfast.engine.optim import OPTIMIZER_REGISTRY, build_optimizer, load_optimizer_state
from slowfast.engine.step import TrainStep
from slowfast.errors import ConfigError
from slowfast.models.convmlp import ConvMLP
from slowfast.utils import private_ops
from slowfast.utils.distributed import World
from slowfast.utils.logging import warn_once
from tests.conftest import tiny_settings

CPU = torch.device("cpu")


def clip_forward(cfg: ConfigNode, dtype: str, where: torch.device = CPU, mixed: bool = True) -> ClipForward:
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
                found = clip_forward(tiny_cfg, name)
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
    assert clip_forward(tiny_cfg, name, torch.device("cuda")).amp_dtype == AMP_DTYPES[name]
    assert clip_forward(tiny_cfg, name, mixed=False).amp_dtype is None
    assert not caplog.records


@pytest.mark.parametrize("has", [True, False])
def test_losses_are_scaled_for_float16_alone(tiny_cfg: ConfigNode, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    supported(monkeypatch, True, has)
    model = nn.Linear(2, 2)
    for name in AMP_DTYPES:
        found = clip_forward(tiny_cfg, name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step = TrainStep(tiny_cfg, World(), model, optimizer, found)
        assert step.scaler.is_enabled() == (has and name == "float16")


def tiny_evmlp(data: Path, output: Path, *more: object) -> ConfigNode:
    """A frame-by-frame evMLP of one block; with SGD, since AdamW would enlarge differences of rounding."""
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *tiny_settings(data, output),
            *(
                "MODEL.MODEL_NAME",
                "evMLP",
                "MODEL.FRAMEWISE",
                "logits",
                "EVMLP.LAYERS",
                "[1]",
                "EVMLP.EMBED_DIMS",
                "[8]",
            ),
            *("EVMLP.PATCH_SIZES", "[32]", "EVMLP.MLP_RATIOS", "[1]", "EVMLP.DROPOUT_RATES", "[0.2]"),
            *("SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.BASE_LR", 0.05, "SOLVER.MAX_EPOCH", 2),
            *(
                "DATA_LOADER.NUM_WORKERS",
                0,
                "DATA_LOADER.DRAW_SAMPLES",
                0,
                "TEST.ENABLE",
                False,
                "TRAIN.EVAL_PERIOD",
                9,
            ),
            *("TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 1, "TEST.BATCH_SIZE", 3),
            *more,
        ]
    )
    return cfg


@pytest.fixture(scope="module")
def plain(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two epochs without any of the switches."""
    output = tmp_path_factory.mktemp("plain")
    run(tiny_evmlp(kinetics_folder, output))
    return output


def resumed(plain: Path, data: Path, output: Path, *switches: object) -> dict[str, torch.Tensor]:
    """Repeat the second epoch with other switches; return the weights after it."""
    shutil.copytree(checkpoint_folder(plain), checkpoint_folder(output))
    (checkpoint_folder(output) / "checkpoint_epoch_00002.pyth").unlink()
    run(tiny_evmlp(data, output, *switches))
    return last_weights(output)


def last_weights(output: Path) -> dict[str, torch.Tensor]:
    last = find_last(output)
    assert last is not None and last.name == "checkpoint_epoch_00002.pyth"
    weights: dict[str, torch.Tensor] = read_checkpoint(last)["model_state"]
    return weights


def check_same(weights: dict[str, torch.Tensor], plain: Path) -> None:
    expected = last_weights(plain)
    assert weights.keys() == expected.keys()
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_resumes_compiled_and_profiled(
    plain: Path,
    kinetics_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Dynamo captures the graphs, PyTorch runs them: code generation takes long and is tested on its own.
    monkeypatch.setattr(forward, "BACKEND", "eager")
    switches = ["TRAIN.COMPILE", True, "TEST.ENABLE", True, "TEST.COMPILE", True, "SOLVER.FUSED", "never"]
    switches += ["PROFILE.ENABLE", True, "PROFILE.WAIT", 0, "PROFILE.WARMUP", 1, "PROFILE.ACTIVE", 1]
    check_same(resumed(plain, kinetics_folder, tmp_path, *switches), plain)
    check_trace(tmp_path / "profile" / "train_trace.json", set(RANGES))
    check_trace(tmp_path / "profile" / "test_trace.json", {"data loading", "forward"})
    for name in ("train", "test"):
        assert "aten::" in (tmp_path / "profile" / f"{name}_operators.txt").read_text()
    assert json.loads((tmp_path / "test_results.json").read_text())["videos"] == 8

    run(tiny_evmlp(kinetics_folder, tmp_path, "SOLVER.MAX_EPOCH", 3))  # and uncompiled again
    last = find_last(tmp_path)
    assert last is not None and last.name == "checkpoint_epoch_00003.pyth"


def check_trace(path: Path, ranges: set[str]) -> None:
    """Check that a trace has complete events with times, which Perfetto and chrome://tracing need, and its ranges."""
    trace = json.loads(path.read_text())
    complete = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    for event in complete:
        assert event["ts"] >= 0 and event["dur"] >= 0 and {"name", "pid", "tid"} <= event.keys()
    names = [event["name"] for event in complete]
    assert sum(name.startswith("ProfilerStep#") for name in names) == 1
    assert ranges <= set(names) and any(name.startswith("aten::") for name in names)
    (forward,) = [event for event in complete if event["name"] == "forward" and event.get("cat") == "user_annotation"]
    inside = [e for e in complete if e["name"].startswith("aten::") and forward["ts"] <= e["ts"] < _end(forward)]
    assert inside and all(_end(event) <= _end(forward) + 1 for event in inside)


def _end(event: dict[str, float]) -> float:
    return event["ts"] + event["dur"]


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_an_optimizer_resumes_with_another_layout(method: str) -> None:
    """Fused optimizers pair the elements of weights and state by their order in memory."""
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", method, "SOLVER.BASE_LR", 0.01])
    x = torch.randn(2, 3, 8, 8)
    model: nn.Module = nn.Conv2d(3, 4, 3)
    optimizer = build_optimizer(cfg, model)
    for _ in range(2):
        step(model, optimizer, x)
    other = copy.deepcopy(model)
    use_channels_last(other)
    resumed = build_optimizer(cfg, other)
    load_optimizer_state(resumed, copy.deepcopy(optimizer.state_dict()), cfg, other)
    step(model, optimizer, x)
    step(other, resumed, x)
    assert next(other.parameters()).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=1e-5, atol=1e-6)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_channels_last_changes_the_layout_and_nothing_else() -> None:
    torch.manual_seed(0)
    model, x = ConvMLP(3, (1, 1, 1), (8, 8, 8), (1, 1, 1), 8, 1).eval(), torch.randn(2, 3, 32, 32)
    keys, before = list(model.state_dict()), model(x)
    use_channels_last(model)
    convolutions = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[1] > 1]
    assert convolutions and all(w.is_contiguous(memory_format=torch.channels_last) for w in convolutions)
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


def test_a_smaller_batch_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_shapes = []

    def record(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        compiled_shapes.append([tuple(x.shape) for x in inputs if x.shape[-1:] == (4,) and x.dim() == 2])
        return graph.forward

    monkeypatch.setattr(forward, "BACKEND", record)
    model = nn.Sequential(nn.Linear(4, 5))
    fast = CompiledForTest(model)
    for rows in (3, 3, 2, 3):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(fast(x), model(x))
    assert len(compiled_shapes) == 1 and (3, 4) in compiled_shapes[0]


@pytest.mark.slow
@torch.no_grad()
def test_generated_code_computes_the_same(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    if forward._missing_on_cpu():
        pytest.skip(forward._missing_on_cpu())
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no process pool for a single kernel
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(0.5), nn.GELU()), torch.randn(3, 4)
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    with caplog.at_level("INFO"):
        torch.testing.assert_close(forward.compile_model(model)(x), expected)
    assert "the first step compiles the network" in caplog.text  # it may take minutes without a step


def refused(check: object, message: str, *overrides: object) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(list(overrides))
    with pytest.raises(ConfigError, match=message):
        check(cfg)  # type: ignore[operator]


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    events = ("MODEL.MODEL_NAME", "Event2Vec")
    refused(check_compile, "TRAIN.COMPILE: Event2Vec takes events", "TRAIN.COMPILE", True, *events)
    refused(check_compile, "TEST.COMPILE: Event2Vec takes events", "TEST.COMPILE", True, *events)
    refused(check_compile, "MODEL.ACT_CHECKPOINT", "TRAIN.COMPILE", True, "MODEL.ACT_CHECKPOINT", 2)
    refused(check_compile, "event-driven", "TRAIN.ENABLE", False, "TEST.COMPILE", True, "EVENT.ENABLE", True)
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    refused(check_compile, r"a C\+\+ compiler, and .*no-compiler is not found", "TRAIN.COMPILE", True)
    check_compile(get_cfg())  # nothing is compiled
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(forward.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(forward.shutil, "which", lambda name: name)
    refused(check_compile, "Python.h does not exist", "TEST.COMPILE", True)


def test_channels_last_is_refused_without_convolutions() -> None:
    refused(check_channels_last, "Event2Vec has no conv", "MODEL.CHANNELS_LAST", True, "MODEL.MODEL_NAME", "Event2Vec")
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.CHANNELS_LAST", True, "MODEL.MODEL_NAME", "ConvMLP"])
    check_channels_last(cfg)


def test_fused_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        OPTIMIZER_REGISTRY._obj_map, "rprop", lambda cfg, groups: torch.optim.Rprop(groups, lr=cfg.SOLVER.BASE_LR)
    )
    cfg, model = get_cfg(), nn.Linear(2, 2)
    for method in ("sgd", "adam", "adamw"):
        for value, fused in (("auto", True), ("always", True), ("never", False)):
            cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", method, "SOLVER.FUSED", value])
            assert build_optimizer(cfg, model).defaults["fused"] is fused
    for value in ("auto", "never"):
        cfg.merge_from_list(["SOLVER.OPTIMIZING_METHOD", "rprop", "SOLVER.FUSED", value])
        build_optimizer(cfg, model)
    cfg.merge_from_list(["SOLVER.FUSED", "always"])
    with pytest.raises(ConfigError, match="SOLVER.OPTIMIZING_METHOD rprop has no fused form. Set SOLVER.FUSED auto"):
        build_optimizer(cfg, model)


def test_a_profile_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        for folder, wait in ((tmp_path / "file", 0), (tmp_path / "unused", 9)):
            profiler = StepProfiler(folder, "train", wait, 0, 1, torch.device("cpu"))
            with named_range("forward"):
                torch.ones(3).sum()
            profiler.step()
            profiler.step()
            profiler.close()
    assert "Cannot write the profile of train" in caplog.text
    assert "No profile of train: it ended after 2 steps, of which PROFILE.WAIT and PROFILE.WARMUP skip 9" in caplog.text
    assert not (tmp_path / "unused").exists()
