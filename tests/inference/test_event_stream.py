"""Logits of the windows of event streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from event_files import event_settings

from slowfast.config.defaults import get_cfg
from slowfast.datasets.dvs.event_windows import windows_by_count
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.inference.stream import StreamClassifier, stream_metrics
from slowfast.models import build_model

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
