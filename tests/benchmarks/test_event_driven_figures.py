"""Measurements of event-driven inference with a small network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.event_driven import measure_event_driven
from benchmarks.measure import TARGETS
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from tests.video_files import write_video

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = [
    *("EVMLP.EMBED_DIMS", [8, 8], "EVMLP.PATCH_SIZES", [2, 16], "EVMLP.LAYERS", [1, 1], "EVMLP.MLP_RATIOS", [1, 1]),
    *("EVMLP.DROPOUT_RATES", [0, 0], "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32, "NUM_GPUS", 0),
]


def small(tmp_path: Path, *overrides: object) -> ConfigNode:
    return load_config(CONFIGS / "ImageNet" / "EVMLP.yaml", [*SMALL, "OUTPUT_DIR", tmp_path, *overrides])


def test_every_figure_with_a_target_is_there(tmp_path: Path) -> None:
    # Clips that have targets of their own.
    videos = [tmp_path / name for name in ("fixed_camera_bottles.mp4", "pancake.mkv", "eat.mkv")]
    for video in videos:
        write_video(video, frames=70)
    groups = measure_event_driven(small(tmp_path), torch.device("cpu"), 2, videos)
    measurements = [measurement for group in groups for measurement in group]
    assert all(measurement.value > 0 for measurement in measurements)
    wanted = {key for key in TARGETS if key[0].startswith("event-driven")}
    assert wanted == {
        (measurement.group, measurement.name) for measurement in measurements if measurement.target is not None
    }
    assert all(any(video.name in measurement.group for measurement in measurements) for video in videos)
    dense = [measurement.name for measurement in measurements if "at a time" in measurement.group]
    assert dense == 2 * ["network", "engine", "speed-up"]


def test_mistakes_are_said(tmp_path: Path) -> None:
    video = tmp_path / "short.mp4"
    write_video(video, frames=20)
    with pytest.raises(ConfigError, match="has 20 frames. At least 32"):
        next(measure_event_driven(small(tmp_path), torch.device("cpu"), 1, [video]))
    other = load_config(CONFIGS / "ImageNet" / "CONVMLP_S.yaml", ["OUTPUT_DIR", tmp_path])
    with pytest.raises(ConfigError, match="ConvMLP"):
        next(measure_event_driven(other, torch.device("cpu"), 1, []))
