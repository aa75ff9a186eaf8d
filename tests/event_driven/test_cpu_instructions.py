"""Event-driven inference on CPUs without AVX-512, emulated by limits of oneDNN, PyTorch and the compiler."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch

from slowfast.event_driven import EventDrivenInference, linear_kernels, network
from slowfast.event_driven.kernels import build, load_kernels
from slowfast.event_driven.linear_kernels import Int8Linear, rows_dtype
from slowfast.models.evmlp import EvMLP
from slowfast.utils.logging import warn_once
from tests.event_driven.test_engine import video
from tests.random_weights import randomized

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
# Environment of a process: PyTorch reads its variables when it is loaded.
LIMITS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", build.ISA_VARIABLE: "avx2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", build.ISA_VARIABLE: "baseline"},
}
NO_BFLOAT16 = "PyTorch has no fast bfloat16 matrix multiplication on this CPU"


def small() -> EvMLP:
    torch.manual_seed(0)
    sizes = {"embed_dims": (8, 12, 70), "patch_sizes": (3, 2, 4), "layers": (2, 1, 2), "mlp_ratios": (2, 3, 2)}
    return randomized(EvMLP(num_classes=7, dropout_rates=(0, 0, 0.5), **sizes)).eval()


def error(model: EvMLP, **options: Any) -> float:
    """Return the largest error of event-driven logits relative to the largest logit in float32."""
    frames = video(5)
    logits = EventDrivenInference(model, 0.0, **options).run(frames[:, None]).logits[:, 0]
    with torch.no_grad():
        want = model(frames)
    return float((logits - want).abs().max() / want.abs().max())


def measure() -> dict[str, Any]:
    """Measure errors in a process with such limits."""
    model = small()
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": str(rows_dtype("bfloat16", CPU)),
        "kernels": load_kernels() is not None,
        "errors": {
            f"{precision} {kernels}": error(model, precision=precision, compiled=kernels)
            for precision in ("float32", "bfloat16", "int8")
            for kernels in (True, False)
        },
    }


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these limits are those of x86")
@pytest.mark.parametrize("name", LIMITS)
def test_all_precisions_work_without_the_instructions(name: str) -> None:
    code = "import json; from tests.event_driven.test_cpu_instructions import measure; print(json.dumps(measure()))"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env={**os.environ, **LIMITS[name]})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["capability"] in ("AVX2", "DEFAULT", "NO AVX") and found["bfloat16"] == "torch.float32"
    assert found["kernels"] == (load_kernels() is not None)
    errors = found["errors"]
    assert max(errors["float32 True"], errors["float32 False"], errors["bfloat16 False"]) < 1e-4
    assert 0 < errors["bfloat16 True"] < 0.05 or not found["kernels"]
    assert 0 < errors["int8 True"] < 0.1 and 0 < errors["int8 False"] < 0.1
    # With and without kernels: each is logged once, however many engines there are.
    assert done.stderr.count(NO_BFLOAT16) == 1 + found["kernels"] and done.stderr.count("Running in float32") == 1


@pytest.fixture
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulate oneDNN on a CPU with AVX2: it reports no bfloat16 support and raises for bfloat16 weights."""
    real = torch.ops.mkldnn._reorder_linear_weight

    def reorder(weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        if weight.dtype == torch.bfloat16:
            raise RuntimeError("mkldnn_reorder_linear_weight: bf16 path needs the cpu support avx_ne_convert")
        return real(weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", reorder)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    warn_once.cache_clear()


@pytest.mark.parametrize(
    "precision, kernels, what",
    [
        ("bfloat16", True, "The compiled kernels multiply bfloat16 weights in float32. Set"),
        ("bfloat16", False, "Running in float32, without compiled kernels"),
        ("float32", False, None),
        ("int8", True, None),
        ("int8", False, None),
    ],
)
def test_warning_names_the_precision_used(
    precision: str, kernels: bool, what: str | None, no_bfloat16: None, caplog: pytest.LogCaptureFixture
) -> None:
    if kernels and load_kernels() is None:
        pytest.skip("no C++ compiler here")
    model = small()
    with caplog.at_level(logging.WARNING, "slowfast"):
        assert [error(model, precision=precision, compiled=kernels) < 0.1 for _ in range(2)] == [True] * 2
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (what is not None)
    assert all(NO_BFLOAT16 in message and str(what) in message for message in messages)


def test_all_multiplications_are_in_float32(no_bfloat16: None) -> None:
    plain = network.PatchNetwork(small(), "bfloat16")
    assert all(stage.pytorch is not None and stage.pytorch.dtype == torch.float32 for stage in plain.stages)
    layer = torch.nn.Linear(64, 5)
    product = linear_kernels.make_linear(layer, "int8")
    assert isinstance(product, Int8Linear) and product.dtype == torch.float32
    x = torch.randn(3, 64)
    quantized, scale = linear_kernels.int8_weights(layer.weight.detach())
    want = torch.nn.functional.linear(x, quantized * scale[:, None], layer.bias.detach())
    torch.testing.assert_close(product.linear(x), want)


@pytest.mark.parametrize("rounded", [True, False])
def test_weights_multiplied_in_float32_are_rounded_as_those_of_the_kernels(rounded: bool, no_bfloat16: None) -> None:
    layer, x = torch.nn.Linear(64, 5), torch.randn(3, 64)
    weight = layer.weight.detach().bfloat16().float() if rounded else layer.weight.detach()
    want = torch.nn.functional.linear(x, weight, layer.bias.detach())
    found = linear_kernels.make_linear(layer, "bfloat16", rounded).linear(x)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)
