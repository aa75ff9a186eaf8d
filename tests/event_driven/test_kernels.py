"""Compiled kernels against PyTorch on odd sizes, and the fallback without a compiler."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.errors import ConfigError
from slowfast.event_driven import kernels as kernel_module
from slowfast.event_driven.detector import Changes, changed_patches
from slowfast.event_driven.features import CompiledFeatures, PatchFeatures
from slowfast.event_driven.kernels import Gate, Kernels, load_kernels, takes_frames
from slowfast.event_driven.kernels.stage import CompiledStage
from slowfast.event_driven.network import KERNELS_VARIABLE, PatchNetwork
from slowfast.models.evmlp import EvMLP, Stage
from slowfast.utils import private_cache
from slowfast.utils.logging import warn_once
from tests.random_weights import randomized

pytestmark = pytest.mark.slow


PORTABLE_VNNI = "avx512_vnni without its instructions"  # the same layout and arithmetic, on any CPU


@pytest.fixture(scope="module", params=[*kernel_module.INSTRUCTION_SETS, PORTABLE_VNNI])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Kernels for each instruction set of this CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(kernel_module.ISA_VARIABLE, "baseline" if request.param == PORTABLE_VNNI else request.param)
        if request.param == PORTABLE_VNNI:
            patch.setattr(kernel_module, "_FLAGS", (*kernel_module._FLAGS, "-O1", "-DSLOWFAST_PORTABLE_VNNI"))
        elif kernel_module.instruction_set() != request.param:
            pytest.skip("this CPU does not have the instructions")
        found = load_kernels.__wrapped__()
    if found is None:
        pytest.skip("no C++ compiler here that takes the flags")
    return found


def test_instructions_are_limited_to_a_set_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernel_module,
        "cpu_description",
        lambda: b"x86_64 flags : fma avx2 f16c bmi2 avx512f avx512bw avx512vl avx512dq",
    )
    monkeypatch.delenv(kernel_module.ISA_VARIABLE, raising=False)
    assert kernel_module.instruction_set() == "avx512" and kernel_module._target_flags() == ["-march=native"]
    found = {}
    for limit in kernel_module.INSTRUCTION_SETS:
        monkeypatch.setenv(kernel_module.ISA_VARIABLE, limit)
        found[limit] = (
            kernel_module.instruction_set(),
            "-mavx2" in kernel_module._target_flags(),
            "-mavx512f" in kernel_module._target_flags(),
        )
    assert found == {
        "baseline": ("baseline", False, False),
        "avx2": ("avx2", True, False),
        "avx2_vnni": ("avx2", True, False),
        **dict.fromkeys(("avx512", "avx512_vnni", "avx512_bf16"), ("avx512", True, True)),
    }
    monkeypatch.setenv(kernel_module.ISA_VARIABLE, "sse9")
    with pytest.raises(ConfigError, match="SLOWFAST_MAX_CPU_ISA: unknown value 'sse9'. Choices: baseline, avx2"):
        load_kernels.__wrapped__()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these instructions are those of x86")
@pytest.mark.parametrize("name", kernel_module.INSTRUCTION_SETS)
def test_kernels_compile_for_cpus_other_than_this_one(name: str) -> None:
    if kernel_module.instruction_set() == name or shutil.which("g++") is None:
        pytest.skip("no g++ here, or compiled by the other tests")
    flags = [f"-m{feature.replace('_', '')}" for feature in kernel_module.INSTRUCTION_SETS[name]]
    line = ["g++", "-fsyntax-only", "-std=c++17", "-fopenmp", *flags, str(kernel_module._SOURCES / "stage.cpp")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def as_stored(weight: torch.Tensor, precision: str, kernels: Kernels) -> torch.Tensor:
    """Round a float32 weight to a precision."""
    if precision == "int8":
        quantized, scale = kernels.int8_weights(weight)
        return quantized.float() * scale[:, None]
    return weight.to(getattr(torch, precision)).float()


def quantized(x: torch.Tensor, kernels: Kernels) -> torch.Tensor:
    """Round rows to integers as the kernels do, with a scale per row."""
    low = x.amin(1, keepdim=True).clamp_max(0) if kernels.quantized_unsigned else 0
    span = x.amax(1, keepdim=True).clamp_min(0) - low if kernels.quantized_unsigned else x.abs().amax(1, keepdim=True)
    scale = span.clamp_min(torch.finfo(torch.float32).tiny) / kernels.largest_quantized(x.shape[1])
    return ((x - low) / scale).round() * scale + low


def rounding(kernels: Kernels, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what the kernels do to rows before a multiplication."""
    if precision == "int8":
        return lambda x: quantized(x, kernels)
    if precision == "bfloat16" and kernels.inputs_per_step(2) == 2:
        return lambda x: x.bfloat16().float()
    return lambda x: x


def rounded_stage(stage: Stage, x: torch.Tensor, rounded: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Compute a stage in float32 with rounded inputs of the multiplications."""
    y = stage[1](rounded(x))
    for block in stage.blocks:
        first, *_, last = block.fn
        hidden = torch.nn.functional.gelu(first(rounded(y)))
        y = block.norm(y + last(rounded(hidden)))
    return y


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@settings(max_examples=20, deadline=None)
@given(
    inputs=st.integers(1, 600),
    width=st.sampled_from([2, 16, 63, 64, 65, 130, 320]),
    blocks=st.integers(0, 2),
    ratio=st.sampled_from([1, 2]),
    rows=st.one_of(st.integers(1, 6), st.integers(1, 60)),
    group=st.sampled_from([0, 0, 1, 6, 7, 48]),
    threads=st.sampled_from([1, 2, 5]),
)
def test_compiled_stage_equals_pytorch(
    kernels: Kernels,
    precision: str,
    inputs: int,
    width: int,
    blocks: int,
    ratio: int,
    rows: int,
    group: int,
    threads: int,
) -> None:
    torch.manual_seed(rows)
    stage = randomized(Stage(inputs, width, blocks, ratio, 0.0)).eval()
    with torch.inference_mode():
        fast = CompiledStage(stage, precision, kernels)
        fast.group = group
        x = torch.randn(rows, inputs)
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        found = fast(x)
        torch.set_num_threads(usual)
        for weight in (p for p in stage.parameters() if p.ndim == 2):
            weight.copy_(as_stored(weight, precision, kernels))
        want = rounded_stage(stage, x, rounding(kernels, precision))
        if precision == "float32" or kernels.inputs_per_step(fast.weight_bytes) == 1:
            torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)
            return
        off = (found - want).abs()
        # Another summation order changes some roundings, which a norm over 2 channels amplifies.
        assert off.median() < 2e-5 + 1e-3 * blocks and (off > 0.05).float().mean() <= 0.05


def embedding(inputs: int, outputs: int) -> Stage:
    """Return a stage that consists of one linear layer."""
    return randomized(Stage(inputs, outputs, 0, 1, 0.0)).eval()


@pytest.mark.parametrize("inputs, rows", [(2, 3), (147, 20), (2048, 5)])
def test_integers_are_multiplied_exactly(kernels: Kernels, inputs: int, rows: int) -> None:
    torch.manual_seed(rows)
    stage = embedding(inputs, 70)
    largest = kernels.largest_quantized(inputs)
    low = -100 if kernels.quantized_unsigned else -largest
    integers = torch.randint(low, low + 256 if kernels.quantized_unsigned else largest + 1, (rows, inputs))
    integers[:, 0], integers[:, 1], integers[0] = low, low + 255 if kernels.quantized_unsigned else largest, 0
    exponents = torch.randint(-20, 20, (rows, 1))
    with torch.inference_mode():
        found = CompiledStage(stage, "int8", kernels)(integers * 2.0**exponents)
    weight, scale = kernels.int8_weights(stage[1].weight.detach())
    steps = 2.0**exponents * scale
    want = integers.double() @ weight.double().T * steps + stage[1].bias.detach()
    # The sum of integers is exact, and then rounded to float32.
    bound = 3e-7 * (steps * largest * weight.double().abs().sum(1) + want.abs())
    assert ((found - want).abs() <= bound).all()


@pytest.mark.parametrize("inputs", [512, 516, 517, 8192, 66_000])
def test_largest_integers_do_not_overflow(kernels: Kernels, inputs: int) -> None:
    stage = embedding(inputs, 3)
    with torch.inference_mode():
        stage[1].weight.copy_(torch.tensor([[1.0], [-1.0], [0.5]]).expand(3, inputs))
        found = CompiledStage(stage, "int8", kernels)(torch.tensor([[1.0], [-1.0]]).expand(2, inputs))
        want = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5]]) * inputs + stage[1].bias
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-29])
def test_tiny_rows_are_quantized_without_overflow(kernels: Kernels, size: float) -> None:
    stage = embedding(20, 9)
    with torch.inference_mode():
        found = CompiledStage(stage, "int8", kernels)(torch.full((2, 20), -size))
        torch.testing.assert_close(found, stage[1].bias.expand(2, 9))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stay_in_their_row(kernels: Kernels, precision: str, number: float) -> None:
    torch.manual_seed(0)
    stage = randomized(Stage(20, 9, 1, 2, 0.0)).eval()
    x = torch.randn(8, 20)
    with torch.inference_mode():
        fast = CompiledStage(stage, precision, kernels)
        want = fast(x).clone()
        x[2, 5] = number
        found = fast(x)
    assert found[2].isnan().all()
    others = [0, 1, *range(3, 8)]
    assert torch.equal(found[others], want[others])


def test_gelu_is_exact_in_float32(kernels: Kernels) -> None:
    """Recover gelu(x) from a block that computes LayerNorm(x + W gelu(x))."""
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
    near = (x - y).abs() > 0.1  # elsewhere the norm divides rounding errors by almost zero
    torch.testing.assert_close(found[near], want[near], rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 3),
    slots=st.sampled_from([[0], [2], [1, 0], [0, 3, 2]]),
    patch=st.integers(1, 7),
    grid=st.integers(1, 6),
    mean=st.booleans(),
    hold=st.booleans(),
    channels_last=st.booleans(),
    threshold=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_compiled_gate_equals_pytorch(
    kernels: Kernels,
    k: int,
    slots: list[int],
    patch: int,
    grid: int,
    mean: bool,
    hold: bool,
    channels_last: bool,
    threshold: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    side, s = patch * grid, len(slots)
    references = torch.randn(4, 3, side, side, generator=generator)
    changed = torch.rand(k, s, 1, side, side, generator=generator) < 0.1
    frames = references[slots] + torch.randn(k, s, 3, side, side, generator=generator) * changed
    frames[-1, 0, 0, 0, 0] = torch.nan
    full = torch.rand(k, s, generator=generator) < 0.2
    if channels_last:
        references = references.contiguous(memory_format=torch.channels_last)
        frames = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (k, s))
    order = torch.randperm(grid**2, generator=generator)  # any order of the patches
    gate = Gate.of(side, patch, threshold, mean, hold, order.argsort())
    want, kept = slow_changes(frames, references[slots], patch, mean, hold, threshold, full)

    found = kernels.find_changes(frames, references, torch.tensor(slots), gate, full)
    assert torch.equal(found, want.flatten(2)[:, :, order])
    assert torch.equal(references[slots].nan_to_num(), kept.nan_to_num())

    indices = found.flatten().nonzero().squeeze(1)
    rows = kernels.take_patches(frames, indices, gate, order)
    cut = frames.reshape(k * s, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1).flatten(1, 2)  # KS N p p 3
    assert torch.equal(rows.nan_to_num(), cut[:, order].flatten(0, 1).flatten(1)[indices].nan_to_num())


def slow_changes(
    frames: torch.Tensor,
    references: torch.Tensor,
    patch: int,
    mean: bool,
    hold: bool,
    threshold: float,
    full: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the changes frame by frame, bool (K, S, n, n), and the references (S, 3, H, W)."""
    masks, held = [], references.clone()
    for frame, all_of in zip(frames, full, strict=True):
        mask = changed_patches(frame, held, patch, "mean" if mean else "any", threshold) | all_of[:, None, None]
        masks.append(mask)
        pixels = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
        held = torch.where(pixels, frame, held) if hold else frame
    return torch.stack(masks), held


@settings(max_examples=30, deadline=None)
@given(
    k=st.integers(1, 4),
    share=st.sampled_from([0.02, 0.3, 1.0]),
    precision=st.sampled_from(["", "float32", "int8"]),  # of the compiled stages; "": stages by PyTorch
    seed=st.integers(0, 99),
)
def test_compiled_update_equals_pytorch(kernels: Kernels, k: int, share: float, precision: str, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(KERNELS_VARIABLE, "compiled")
        sizes = {"embed_dims": (8, 12, 70), "patch_sizes": (3, 2, 4), "layers": (1, 1, 1), "mlp_ratios": (2, 2, 2)}
        model = randomized(EvMLP(num_classes=7, dropout_rates=(0, 0, 0), **sizes)).eval()
        # Both compute the same products, so the results are equal.
        network = PatchNetwork(model, precision or "float32", kernels if precision else None)
        plain, fast = PatchFeatures(network), CompiledFeatures(network, kernels)
        opened: set[int] = set()
        for slots in ([0, 1], [1], [3, 0]):
            mask = torch.rand(k, len(slots), network.counts[0]) < share
            pixels = torch.randn(int(mask.sum()), network.stages[0].inputs)
            changes = Changes(mask, pixels, slots, [slot for slot in slots if slot not in opened])
            opened.update(slots)
            before = mask.clone()
            want, found = plain.update(changes), fast.update(changes)
            assert torch.equal(found.logits, want.logits) and torch.equal(found.active, want.active)
            assert torch.equal(mask, before)
            for slot in slots:
                assert all(map(torch.equal, fast.rows(slot), plain.rows(slot)))


def test_unsupported_frames_are_detected() -> None:
    assert takes_frames(torch.zeros(2, 1, 3, 8, 8))
    assert not takes_frames(torch.zeros(2, 1, 3, 8, 8).double())
    assert not takes_frames(torch.zeros(2, 1, 3, 8, 16)[..., ::2])
    assert takes_frames(torch.zeros(2, 1, 8, 8, 3).permute(0, 1, 4, 2, 3))


def test_missing_compiler_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.INFO, "slowfast"):
        assert load_kernels.__wrapped__() is None
    assert "No C++ compiler" in caplog.text and len(caplog.records) == 1


def test_failing_compiler_is_logged_and_leaves_no_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "bad.cpp").write_text("this is no program")
    monkeypatch.setattr(kernel_module, "_SOURCES", tmp_path / "sources")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO, "slowfast"):
        assert load_kernels.__wrapped__() is None
    assert "failed" in caplog.text
    assert not list((tmp_path / "cache" / "slowfast").iterdir())


@pytest.mark.parametrize("what", ["library", "folder"])
def test_library_writable_by_others_is_not_loaded(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "one.cpp").write_text('extern "C" int panel() { return 16; }')
    monkeypatch.setattr(kernel_module, "_SOURCES", tmp_path / "sources")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        library = kernel_module.build_library()
    except OSError:
        pytest.skip("No C++ compiler here")
    finally:
        os.umask(before)
    assert library.parent == tmp_path / "cache" / "slowfast" and not library.stat().st_mode & 0o022
    changed = library.stat().st_mtime_ns
    assert kernel_module.build_library() == library and library.stat().st_mtime_ns == changed and not caplog.records

    library.write_bytes(b"planted")
    (library if what == "library" else library.parent).chmod(0o777)
    warn_once.cache_clear()
    monkeypatch.setattr(private_cache, "_temporary_folder", lambda: tmp_path)
    other = kernel_module.build_library()
    assert other.name == library.name and other.parent != library.parent
    assert ctypes.CDLL(str(other)).panel() == 16
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "writable by other users" in record.getMessage()
