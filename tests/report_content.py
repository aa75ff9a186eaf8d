"""Content of a report.html, and of a synthetic run that has everything a report can show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.config.defaults import get_cfg
from slowfast.datasets.types import Failure
from slowfast.utils.text_files import write_json
from slowfast.visualization.heat_map import ACTIVITY_FILE, PatchActivity, write_activity
from slowfast.visualization.per_class import ClassAccuracies, write_per_class
from slowfast.visualization.plots import jpeg
from slowfast.visualization.results import VideoPrediction, class_row, write_failed, write_predictions
from slowfast.visualization.sheets import MISTAKES, MISTAKES_LIST, film_strip
from tests.video_files import picture

_CONTENT = re.compile(r'<script type="application/json" id="content">(.*?)</script>', re.DOTALL)


def report_content(path: Path) -> dict[str, Any]:
    """Return what the page of a report shows."""
    found = _CONTENT.search(path.read_text(encoding="utf-8"))
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def write_run(folder: Path, names: list[str], per_class: int = 5) -> list[VideoPrediction]:
    """Write the files of a training, a test and an event-driven run; return the predictions of the test.

    Args:
        folder: OUTPUT_DIR.
        names: Class names, also those of videos, cameras and config values.
        per_class: Videos per class; those of a class that are predicted as the next one vary, one in all is unreadable.
    """
    folder.mkdir()
    predictions = []
    for index in range(len(names) * per_class):
        label = index // per_class
        best = label if index % (2 + label % 4) else (label + 1) % len(names)
        scores = [] if index == 7 else [(best, 0.5 + 0.4 * (index % 11) / 11), (label, 0.05)]
        predictions.append(VideoPrediction(index, f"{names[label]}/{index}.mp4", label, scores))
    rows = ClassAccuracies.of(predictions, len(names)).rows(names)
    write_per_class(rows, names, folder, "accuracy per class")
    write_predictions(
        (class_row(one.name, one.label, one.best, names) for one in predictions), folder / "predictions.csv"
    )
    write_failed([Failure(7, predictions[7].name, f"no video: {names[0]}")], folder / "failed.csv")
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_EPOCH, cfg.DATA.PATH_PREFIX = str(folder), 4, names[0]
    (folder / "config.yaml").write_text(cfg.dump())
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 3
    (folder / "config_test.yaml").write_text(cfg.dump())
    lines = [{"split": "train", "epoch": n / 20, "step": n, "loss": 40 / (n + 9), "lr": 0.1} for n in range(1, 61)]
    lines[30]["loss"] = None  # NaN
    lines += [{"split": "val", "epoch": n, "step": 20 * n, "loss": 3.0 / n, "top1": 20.0 * n} for n in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(folder / "test_results.json", {"results": {"top-1": "80.00 %"}, "model": names[0], "failed": 1})
    _write_mistakes(folder / MISTAKES, names)
    _write_events(folder, names[:3])
    return predictions


def _write_mistakes(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    (folder / "01.jpg").write_bytes(jpeg(film_strip(np.stack([picture(n, 48, 64) for n in range(8)]))))
    mistake = {
        "path": names[0],
        "label": [names[0]],
        "prediction": names[1],
        "score": 0.9,
        "frames": "01.jpg",
        "note": "",
    }
    write_json(folder / MISTAKES_LIST, [mistake])


def _write_events(folder: Path, cameras: list[str]) -> None:
    videos = [
        {"name": name, "class": name, "frames": 40, "macs_saved": 61.5, "active": [20.0, 50.0]} for name in cameras
    ]
    write_json(folder / "event_results.json", {"trained": False, "all": videos[0], "videos": videos, "finished": True})
    starts, shares = np.arange(0, 40, 4), np.linspace(10, 90, 20).reshape(10, 2)
    heat = np.linspace(0, 1, 64).reshape(8, 8)
    write_activity(
        (PatchActivity(name, picture(1, 32, 32), heat, starts, starts / 25, shares, 40) for name in cameras),
        folder / ACTIVITY_FILE,
    )
