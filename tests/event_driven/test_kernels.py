"""The compiled kernels against PyTorch, on odd sizes; and doing without them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.event_driven import compiled
from slowfast.event_driven.compiled import Kernels, load_kernels, takes_frames
from slowfast.event_driven.compiled_stage import CompiledStage
from slowfast.event_driven.gate import changed_patches
from slowfast.event_driven.network import PlainStage
from slowfast.event_driven.products import int8_weights
from slowfast.models.evmlp import Stage
from tests.random_weights import randomized


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    found = load_kernels()
    if found is None:
        pytest.skip("no C++ compiler here: the compiled kernels cannot be tested")
    return found


def as_stored(weight: torch.Tensor, precision: str) -> torch.Tensor:
    """A float32 weight after rounding to what is kept of it."""
    if precision == "int8":
        whole, scale = int8_weights(weight)
        return whole.float() * scale[:, None]
    return weight.to(getattr(torch, precision)).float()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@settings(max_examples=12, deadline=None)
@given(
    inputs=st.integers(1, 150),
    width=st.sampled_from([2, 16, 63, 64, 65, 130]),
    blocks=st.integers(0, 2),
    ratio=st.sampled_from([1, 2]),
    rows=st.integers(1, 60),
    share_rows=st.booleans(),
)
def test_a_compiled_stage_is_the_plain_one(
    kernels: Kernels,
    precision: str,
    inputs: int,
    width: int,
    blocks: int,
    ratio: int,
    rows: int,
    share_rows: bool,
) -> None:
    torch.manual_seed(rows)
    stage = randomized(Stage(inputs, width, blocks, ratio, 0.0)).eval()
    with torch.inference_mode():
        fast = CompiledStage(stage, precision, kernels)
        fast._few_weights = share_rows
        x = torch.randn(rows, inputs)
        found = fast(x)
        for weight in (p for p in stage.parameters() if p.ndim == 2):
            weight.copy_(as_stored(weight, precision))
        want = PlainStage(stage, "float32")(x)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)


def test_gelu_is_exact_to_float32s_digits(kernels: Kernels) -> None:
    """One block whose weights pass a number through: LayerNorm(x + W gelu(x)) tells gelu(x)."""
    x = torch.cat((torch.linspace(-12, 12, 4001), torch.tensor([-100.0, 100.0, 0.0])))
    stage = Stage(1, 2, 1, 0.5, 0.0).eval()
    with torch.inference_mode():
        stage[1].weight.copy_(torch.tensor([[1.0], [0.0]]))
        stage[1].bias.zero_()
        first, *_, last = stage[2].fn
        first.weight.copy_(torch.tensor([[1.0, 0.0]]))
        last.weight.copy_(torch.tensor([[0.0], [1.0]]))
        first.bias.zero_(), last.bias.zero_()
        y = torch.nn.functional.gelu(x.double())
        want = torch.nn.functional.layer_norm(torch.stack((x.double(), y), 1), (2,)).float()
        found = CompiledStage(stage, "float32", kernels)(x[:, None])
    near = (x - y).abs() > 0.1  # elsewhere the norm divides rounding by nearly nothing
    torch.testing.assert_close(found[near], want[near], rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    patch=st.integers(1, 7),
    grid=st.integers(1, 6),
    mean=st.booleans(),
    channels_last=st.booleans(),
    threshold=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_the_compiled_gate_is_the_plain_one(
    kernels: Kernels, batch: int, patch: int, grid: int, mean: bool, channels_last: bool, threshold: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = patch * grid
    before = torch.randn(batch, 3, side, side, generator=generator)
    after = before + torch.randn(batch, 3, side, side, generator=generator) * (
        torch.rand(batch, 1, side, side, generator=generator) < 0.1
    )
    after[0, 0, 0, 0] = torch.nan
    if channels_last:
        before, after = (x.contiguous(memory_format=torch.channels_last) for x in (before, after))
    want = changed_patches(after, before, patch, "mean" if mean else "any", threshold).flatten(1)
    order = torch.randperm(grid**2, generator=generator)  # any order of the patches
    found = kernels.changed_patches(after, before, patch, mean, threshold, order)
    assert torch.equal(found[:, order], want)

    places = torch.randperm(batch * grid**2, generator=generator)[: 1 + seed]
    cut = after.reshape(batch, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1).reshape(-1, patch * patch * 3)
    held = before.clone(memory_format=torch.preserve_format)
    rows = kernels.take_patches(after, held, places, patch)
    assert torch.equal(rows.nan_to_num(), cut[places].nan_to_num())
    kept = held.reshape(batch, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1).reshape(-1, patch * patch * 3)
    old = before.reshape(batch, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1).reshape(-1, patch * patch * 3)
    taken = torch.zeros(batch * grid**2, dtype=torch.bool)
    taken[places] = True
    assert torch.equal(kept[taken].nan_to_num(), cut[taken].nan_to_num()) and torch.equal(kept[~taken], old[~taken])


def test_frames_the_kernels_cannot_read_are_known() -> None:
    assert takes_frames(torch.zeros(1, 3, 8, 8))
    assert not takes_frames(torch.zeros(1, 3, 8, 8).double())
    assert not takes_frames(torch.zeros(1, 3, 8, 16)[..., ::2])
    assert takes_frames(torch.zeros(1, 8, 8, 3).permute(0, 3, 1, 2))


def test_without_a_compiler_there_is_one_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.INFO, "slowfast"):
        assert load_kernels.__wrapped__() is None
    assert "no C++ compiler" in caplog.text and len(caplog.records) == 1


def test_a_failing_compiler_is_said_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bad = tmp_path / "kernels.cpp"
    bad.write_text("this is no program")
    monkeypatch.setattr(compiled, "_SOURCE", bad)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO, "slowfast"):
        assert load_kernels.__wrapped__() is None
    assert "failed" in caplog.text
    assert not list((tmp_path / "cache" / "slowfast").iterdir())
