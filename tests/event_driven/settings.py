"""Overrides for a small evMLP on frames of 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path

EMPTY = Path(__file__).parents[1] / "empty.yaml"


def small_evmlp(output: Path) -> list[object]:
    """Return overrides for a network whose predictions vary from frame to frame."""
    return [
        *("MODEL.MODEL_NAME", "evMLP", "MODEL.NUM_CLASSES", 8, "EVMLP.PATCH_SIZES", "[4,2,2,2]"),
        *("EVMLP.EMBED_DIMS", "[8,12,16,16]", "EVMLP.LAYERS", "[1,1,1,1]", "EVMLP.MLP_RATIOS", "[2,2,2,2]"),
        *("EVMLP.DROPOUT_RATES", "[0,0,0,0]", "DATA.TEST_CROP_SIZE", 32, "DATA.TRAIN_CROP_SIZE", 32),
        *("DATA.TRAIN_JITTER_SCALES", "[32,40]", "DATA.IN_VAL_CROP_RATIO", 1.0, "NUM_GPUS", 0),
        *("OUTPUT_DIR", output, "TEST.NUM_SPATIAL_CROPS", 1, "DATA_LOADER.NUM_WORKERS", 0, "LOG_PERIOD", 100),
    ]


def on_videos(place: Path | str, output: Path) -> list[object]:
    """Return overrides for event-driven inference on videos."""
    images = ("TEST.DATASET", "imagenet", "TRAIN.DATASET", "imagenet", "TEST.NUM_ENSEMBLE_VIEWS", 1)
    return [*small_evmlp(output), *images, "EVENT.ENABLE", True, "DATA.PATH_PREFIX", place]
