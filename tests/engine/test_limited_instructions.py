"""Forward pass and training step under autocast on CPUs without AVX-512 or AVX, emulated by library limits."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine.forward import ClipForward
from slowfast.models import build_model
from slowfast.models.linear import pack_linears
from tests.conftest import ROOT
from tests.random_weights import randomized

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these limits are those of x86"),
]

CPU = torch.device("cpu")
LIMITS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
WARNING = "TRAIN.AMP_DTYPE bfloat16: PyTorch has no fast bfloat16 matrix multiplication on this CPU. Running in float32"


def tiny_cfg(mixed_precision: bool) -> ConfigNode:
    """Return the config of a small MorphMLP: linear layers, convolutions and batch normalization."""
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("DATA.NUM_FRAMES", 4, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32, "MODEL.NUM_CLASSES", 8),
            *("MORPH.LAYERS", "[1,1,1,1]", "MORPH.EMBED_DIMS", "[16,16,16,16]", "MORPH.SEGMENT_DIM", "[8,4,2,1]"),
            *("NUM_GPUS", 0, "TRAIN.MIXED_PRECISION", mixed_precision, "TRAIN.AMP_DTYPE", "bfloat16"),
        ]
    )
    return cfg


def measure(mixed_precision: bool) -> dict[str, Any]:
    """Return the logits of a forward pass as in evaluation, and the loss and gradient norm of a training step."""
    cfg = tiny_cfg(mixed_precision)
    torch.manual_seed(0)
    model = randomized(build_model(cfg))
    forward = ClipForward.from_config(cfg, CPU)
    ClipForward.from_config(cfg, CPU)  # does not warn again
    clips = torch.randint(256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    model.eval()
    pack_linears(model)
    with torch.inference_mode(), forward.autocast():
        logits = model(forward.prepare(clips)).float()
    model.train()
    with forward.autocast():
        loss = cross_entropy(model(forward.prepare(clips)).float(), torch.tensor([1, 5]))
    loss.backward()  # without an optimizer, whose import of the compiler takes longer than everything else
    gradients = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "dtype": str(forward.amp_dtype),
        "logits": logits.tolist(),
        "loss": loss.item(),
        "gradient": float(torch.stack(gradients).norm()),
    }


@pytest.mark.parametrize("name", LIMITS)
def test_autocast_falls_back_to_float32_with_one_warning(name: str) -> None:
    code = "import json; from tests.engine.test_limited_instructions import measure; print(json.dumps(measure(True)))"
    environment = {**os.environ, **LIMITS[name], "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(WARNING) == 1 and len(done.stderr.splitlines()) == 1
    found, want = json.loads(done.stdout), measure(False)
    assert found["capability"] in ("AVX2", "DEFAULT", "NO AVX") and found["dtype"] == "None"
    torch.testing.assert_close(torch.tensor(found["logits"]), torch.tensor(want["logits"]), rtol=1e-3, atol=1e-4)
    assert found["loss"] == pytest.approx(want["loss"], rel=1e-3)
    assert found["gradient"] == pytest.approx(want["gradient"], rel=1e-2) and found["gradient"] > 0
