"""The configured network with the engine's own train steps, and batches to feed it.

N clips, T frames, S side of a crop.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from slowfast.benchmark.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, dataset_spec
from slowfast.datasets.types import TrainBatch
from slowfast.engine.forward import AMP_DTYPES, ClipForward
from slowfast.engine.optimizer import build_optimizer
from slowfast.engine.step import TrainStep
from slowfast.models import build_model
from slowfast.runtime.distributed import World

LEARNING_RATE = 0.0  # the same work, and the weights stay as they are
FLOAT32, BFLOAT16 = "float32", "bfloat16"
DTYPES = (FLOAT32, BFLOAT16)


def train_steps(cfg: ConfigNode, device: torch.device, clips: int, checkpointing: bool) -> dict[str, TrainStep]:
    """Steps of `clips` clips, in float32 and in bfloat16 autocast, of one new network with random weights."""
    batch = ("TRAIN.BATCH_SIZE", clips, "AUG.NUM_SAMPLE", 1, "TRAIN.ACCUMULATION_STEPS", 1)
    cfg = changed(cfg, "MODEL.ACT_CHECKPOINT", checkpointing, *batch)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg).to(device)
    optimizer = build_optimizer(cfg, model)
    return {
        dtype: TrainStep(cfg, World(device=device), model, optimizer, forward_in(cfg, device, dtype))
        for dtype in DTYPES
    }


def forward_in(cfg: ConfigNode, device: torch.device, dtype: str) -> ClipForward:
    """Build the forward pass in a dtype of DTYPES, also where a run would choose another one for speed."""
    plain = ClipForward.from_config(changed(cfg, "TRAIN.MIXED_PRECISION", False), device)
    return replace(plain, amp_dtype=AMP_DTYPES.get(dtype))


def example_batch(cfg: ConfigNode, clips: int) -> TrainBatch:
    """Clips of noise as the loader gives them: uint8 (N, T, S, S, 3); T is 1 where the dataset is one of images."""
    rng = np.random.default_rng(cfg.RNG_SEED)
    side, frames = cfg.DATA.TRAIN_CROP_SIZE, 1 if dataset_spec(cfg, TRAIN).images else cfg.DATA.NUM_FRAMES
    pixels = rng.integers(0, 256, (clips, frames, side, side, 3), dtype=np.uint8)
    labels = rng.integers(cfg.MODEL.NUM_CLASSES, size=clips)
    return TrainBatch(torch.from_numpy(pixels), torch.from_numpy(labels), [""] * clips, [])
