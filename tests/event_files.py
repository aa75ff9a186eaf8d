"""Small folders and batches of event recordings for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

SENSOR = (12, 16)
CLASSES = ("a", "b", "c")


def write_recording(path: Path, n: int, seed: int, **changed: np.ndarray) -> None:
    """Write n random events on SENSOR in ascending order of time; `changed` replaces columns."""
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (SENSOR[1], SENSOR[0], 2))
    columns = {"x": x, "y": y, "t": np.sort(rng.integers(0, 50_000, n)), "p": p, **changed}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **columns)


def write_folder(folder: Path, per_class: int = 10, n: int = 60) -> None:
    """Write three class folders, 80 % of each for training."""
    for label, name in enumerate(CLASSES):
        for number in range(per_class):
            write_recording(folder / name / f"{number:03d}.npz", n, 100 * label + number)


def event_batch(n: int, length: int) -> dict[str, torch.Tensor]:
    """Return n recordings of random valid events on SENSOR in ascending order of time: (n, length) each."""
    rng = torch.Generator().manual_seed(1)
    limits = {"x": SENSOR[1], "y": SENSOR[0], "p": 2}
    events = {key: torch.randint(limit, (n, length), generator=rng) for key, limit in limits.items()}
    t = torch.rand(n, length, generator=rng).sort(1)[0]
    return {**events, "t": t - t[:, :1], "valid": torch.ones(n, length, dtype=torch.bool)}


def event_settings(data: Path, output: Path) -> list[object]:
    """Return overrides for an Event2Vec that trains in milliseconds per step."""
    return [
        *("TRAIN.DATASET", "dvsfolder", "TEST.DATASET", "dvsfolder", "DATA.PATH_TO_DATA_DIR", str(data)),
        *("OUTPUT_DIR", str(output), "DVS.SENSOR_SIZE", "[12,16]", "DVS.NUM_EVENTS", 24, "DVS.TIME_NORM", "sample"),
        *("MODEL.MODEL_NAME", "Event2Vec", "MODEL.NUM_CLASSES", 3, "EVENT2VEC.GRID_SIZE", "[6,8]"),
        *("EVENT2VEC.EMBED_DIM", 16, "EVENT2VEC.HEADS", 2, "EVENT2VEC.MLP_DIM", 16, "EVENT2VEC.LAYERS", 1),
        *("TRAIN.BATCH_SIZE", 8, "SOLVER.MAX_EPOCH", 2, "SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.BASE_LR", 1e-3),
        *("NUM_GPUS", 0, "DATA_LOADER.NUM_WORKERS", 0, "LOG_PERIOD", 1, "TRAIN.EVAL_PERIOD", 1),
        *("TEST.NUM_ENSEMBLE_VIEWS", 3, "TEST.NUM_SPATIAL_CROPS", 1, "TEST.BATCH_SIZE", 4),
    ]
