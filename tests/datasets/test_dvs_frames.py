"""Event recordings as frames for video networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_files import SENSOR, event_settings, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.cli.validate_components import validate
from slowfast.config.defaults import get_cfg
from slowfast.datasets import build_loader
from slowfast.datasets.dvs.frames import FRAME_KINDS, EventFramesReader, event_frames
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import ConfigError


def events(n: int, seed: int) -> EventColumns:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (SENSOR[1], SENSOR[0], 2))
    return EventColumns(x, y, np.sort(rng.uniform(5, 100, n)), p)


DECAY = 30.0


def plainly(e: EventColumns, frames: int, kind: str) -> np.ndarray:
    """Compute the frames event by event."""
    grid = np.zeros((frames, 1 if kind == "signed_voxels" else 2, *SENSOR))
    duration = e.t[-1] - e.t[0] or 1e-9
    for x, y, t, p in zip(e.x, e.y, e.t, e.p, strict=True):
        at = (t - e.t[0]) / duration * frames
        if kind == "signed_voxels":
            for frame in range(frames):
                grid[frame, 0, y, x] += (2 * p - 1) * max(0, 1 - abs(frame - (frames - 1) * at / frames))
            continue
        if kind in ("time_surface", "decayed"):
            for frame in range(frames):
                if at < frame + 1 or frame == frames - 1:
                    value = np.exp(-(duration * (frame + 1) / frames - (t - e.t[0])) / DECAY)
                    grid[frame, p, y, x] = value + (grid[frame, p, y, x] if kind == "decayed" else 0)
            continue
        if kind == "counts":
            grid[min(int(at), frames - 1), p, y, x] += 1
            continue
        for frame in range(frames):
            place = min(max(at - 0.5, 0), frames - 1)
            grid[frame, p, y, x] += max(0, 1 - abs(place - frame))
    return grid


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 60), frames=st.integers(1, 7), kind=st.sampled_from(FRAME_KINDS), seed=st.integers(0, 99))
def test_equals_event_by_event_sums(n: int, frames: int, kind: str, seed: int) -> None:
    e = events(n, seed)
    e = replace(e, x=e.x % 5, y=e.y % 3)  # several events of a pixel
    found = event_frames(e, SENSOR, frames, kind, DECAY)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plainly(e, frames, kind), atol=1e-4)
    if kind in ("counts", "voxels"):
        assert found.sum() == pytest.approx(n, rel=1e-4)


def test_reader_has_the_interface_of_a_video(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    path = tmp_path / "data" / "a" / "000.npz"
    with EventFramesReader(path, SENSOR, 1e-6, 4, "counts", 10.0) as reader:
        decoded = reader.read([[0, 1, 2, 3]])
    assert decoded.frames.shape == (4, *SENSOR, 3) and decoded.frames.dtype == np.uint8 and decoded.missing is None
    assert decoded.rows.tolist() == [[0, 1, 2, 3]]
    assert decoded.frames[..., 0].sum() / 10 + decoded.frames[..., 2].sum() / 10 == 60
    with EventFramesReader(path, SENSOR, 1e-6, 4, "counts", 200.0) as reader:
        assert reader.read([0]).frames.max() == 200 or reader.read([0]).frames.max() == 255
    with EventFramesReader(path, SENSOR, 1e-6, 4, "signed_voxels", 20.0) as reader:
        gray = reader.read([0, 1, 2, 3]).frames.astype(np.int64)
        balance = 2 * int(reader.events.p.sum()) - 60
    assert (np.ptp(gray, axis=-1) == 0).all() and np.median(gray) == 128
    assert (gray[..., 0] - 128).sum() / 20 == pytest.approx(balance, abs=3)
    with EventFramesReader(path, SENSOR, 1e-6, 4, "time_surface", 255.0, 1e12) as reader:
        assert set(np.unique(reader.read([3]).frames[..., ::2])) == {0, 255}


def test_clips_for_video_networks(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    cfg = get_cfg()
    cfg.merge_from_list(event_settings(tmp_path / "data", tmp_path / "out"))
    cfg.merge_from_list(["TRAIN.DATASET", "dvsframes", "TEST.DATASET", "dvsframes", "MODEL.MODEL_NAME", "MorphMLP"])
    sizes = ["DATA.NUM_FRAMES", 4, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32]
    cfg.merge_from_list([*sizes, "DATA.TRAIN_JITTER_SCALES", "[32,36]", "MORPH.SEGMENT_DIM", "[8,4,2,1]"])
    with pytest.raises(ConfigError, match="a recording of TEST.DATASET dvsframes has one temporal view"):
        validate(cfg)
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 1
    validate(cfg)
    batch = next(iter(build_loader(cfg, "train")))
    assert batch.clips.shape == (8, 4, 32, 32, 3) and batch.clips.float().std() > 0
    assert next(iter(build_loader(cfg, "test"))).count == 1
