"""Logits of the windows of event streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import SENSOR, event_settings

from slowfast.config.defaults import get_cfg
from slowfast.datasets.dvs.event_windows import EventWindow, windows_by_count
from slowfast.datasets.dvs.frames import event_frames, frame_colors
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.index.samples import UNLABELED
from slowfast.datasets.types import EvalVideo, Record
from slowfast.errors import ConfigError, UserError
from slowfast.inference.stream import FrameViews, StreamClassifier, stream_metrics, window_views
from slowfast.models import build_model
from tests.inference.event_servers import settings as live_settings
from tests.inference.event_servers import some

CPU = torch.device("cpu")


def events(n: int, seed: int = 0) -> EventColumns:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (16, 12, 2))
    return EventColumns(x, y, np.sort(rng.integers(0, 1000, n)).astype(float), p)


def test_logits_are_those_of_the_network(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([*event_settings(tmp_path, tmp_path), "DVS.NUM_EVENTS", 0])
    torch.manual_seed(0)
    model = build_model(cfg)
    classifier = StreamClassifier.from_config(cfg, model, CPU, longest=0.0)
    results = list(classifier(windows_by_count([events(60)], 20)))
    assert [(r.events, r.logits.shape) for r in results] == [(20, (3,))] * 3
    window = events(60).take(np.arange(20, 40))
    t = (window.t - window.t[0]) / (window.t[-1] - window.t[0])
    columns = {"x": window.x, "y": window.y, "p": window.p, "t": t.astype(np.float32), "valid": np.ones(20, bool)}
    with torch.no_grad():
        want = model.eval()({key: torch.from_numpy(values)[None] for key, values in columns.items()})[0]
    torch.testing.assert_close(results[1].logits, want, rtol=1e-4, atol=1e-5)
    assert (results[1].start, results[1].end) == (window.t[0], window.t[-1])
    figures = stream_metrics(results)
    assert (
        figures["latency_ms"] > 0 and figures["events_per_second"] > 0 and stream_metrics([])["events_per_second"] == 0
    )


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    for keys, message in (
        (["DVS.NUM_EVENTS", 0], "DVS.NUM_EVENTS 0 takes all events of a window"),
        (["DVS.CLUSTERS", True], "live streams contain events, not clusters"),
    ):
        cfg = live_settings(tmp_path, tmp_path / "no_weights")
        cfg.merge_from_list(keys)
        with pytest.raises(ConfigError, match=message):
            window_views(cfg, by_count=False)
    cfg = get_cfg()
    with pytest.raises(UserError, match="need a network of events"):
        window_views(cfg, by_count=False)


@pytest.mark.parametrize("kind", ["counts", "time_surface"])
def test_frames_of_a_window(kind: str, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["TEST.DATASET", "dvsframes", "DVS.SENSOR_SIZE", [12, 16], "DATA.NUM_FRAMES", 4])
    cfg.merge_from_list(["DVS.FRAMES", kind, "DATA.TEST_CROP_SIZE", 12, "TEST.NUM_SPATIAL_CROPS", 1])
    views = window_views(cfg, by_count=False)
    assert isinstance(views, FrameViews)
    x, y, t, p = (np.array(column) for column in zip(*some(500, 2_000_100, 2_399_000), strict=True))
    window = EventWindow(5, 2_000_000.0, 2_400_000.0, EventColumns(x, y, t, p))
    sample = views(Record(0, tmp_path, "camera", UNLABELED), window)
    assert isinstance(sample, EvalVideo) and sample.frames is not None and sample.frames.shape == (4, 12, 16, 3)
    plain = np.zeros((4, 2, 12, 16), np.float32)
    for part in range(4):
        for ex, ey, et, ep in zip(x, y, t, p, strict=True):
            first, end = 2_000_000 + part * 100_000, 2_000_000 + (part + 1) * 100_000
            if kind == "counts" and first <= et < end:
                plain[part, ep, ey, ex] += 1
            elif kind == "time_surface" and et < end:
                plain[part, ep, ey, ex] = np.exp((et - end) / cfg.DVS.FRAME_DECAY)
    np.testing.assert_array_equal(sample.frames.numpy(), frame_colors(plain, kind, cfg.DVS.FRAME_GAIN))
    events = EventColumns(x, y, t.astype(float), p)
    np.testing.assert_allclose(event_frames(events, SENSOR, 4, kind, span=(2e6, 4e5)), plain, rtol=1e-5)
