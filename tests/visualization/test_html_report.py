"""Content of report.html, also for damaged, missing and incomplete files of a run."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.cli.main import main
from slowfast.config.defaults import get_cfg
from slowfast.engine import run_report
from slowfast.engine.run_report import TrainingLog, report_run
from slowfast.engine.tasks.classification import Classification
from slowfast.engine.tasks.multi_label import MultiLabel
from slowfast.engine.trackers import Trackers
from slowfast.utils.distributed import World
from slowfast.utils.locks import TRAINING, exclusive_lock, is_locked
from slowfast.utils.text_files import read_csv, write_csv
from slowfast.visualization.heat_map import MAX_BINS, SHARE_LEVELS, PatchActivity
from slowfast.visualization.html_report.curves import MAX_POINTS, thin
from slowfast.visualization.html_report.page import REPORT, write_report
from slowfast.visualization.html_report.run_files import CONFIG, RunStatus
from slowfast.visualization.sheets import MISTAKES_COUNT, most_confident
from tests.report_content import report_content, write_run
from tests.video_files import picture

METRICS = Classification.reported_metrics()
NAMES = ["riding a bike", "walking, slowly", "waving \\ =1+1", "jumping"]


def test_everything_a_run_has(tmp_path: Path) -> None:
    predictions = write_run(tmp_path / "run", NAMES)
    content = report_content(write_report(tmp_path / "run", METRICS))
    assert content["problems"] == [] and content["run"] == {"state": "finished", "text": "finished", "progress": ""}
    titles = [group["title"] for group in content["summary"]]
    assert titles == ["Event-driven inference", "Test", "Training"]
    assert content["summary"][0]["warning"] and ["top-1", "80.00 %"] in content["summary"][1]["tiles"]
    assert ["validation top-1", "60.00 %"] in content["summary"][2]["tiles"]

    charts = {chart["title"]: chart for chart in content["charts"]}
    assert charts.keys() == {"loss", "top-1", "learning rate"}
    assert charts["top-1"]["unit"] == "%" and charts["top-1"]["note"] == "best validation: 60.00 % at epoch 3"
    raw, smoothed, validation = charts["loss"]["series"]
    assert raw["y"][30] is None and smoothed["y"][30] is not None and validation["x"] == [1, 2, 3]

    counts = np.zeros((4, 4), int)
    found = content["confusion"]
    counts[found["labels"], found["predictions"]] = found["videos"]
    for label, best in ((one.label, one.prediction) for one in predictions if one.best):
        counts[label, best] -= 1
    assert not counts.any() and found["unread"] == 1 and found["names"] == NAMES

    assert [row[1] for row in content["per_class"]["rows"]] == NAMES
    [failure] = content["failures"]["rows"]
    assert failure == [predictions[7].name, "not read", f"no video: {NAMES[0]}", "failed.csv"]
    changed = {row[0]: row[1:3] for row in content["config"]["rows"]}
    assert changed["SOLVER.MAX_EPOCH"] == ["4", ""] and changed["TEST.NUM_ENSEMBLE_VIEWS"] == ["10", "3"]
    assert content["mistakes"][0]["frames"].startswith("data:image/jpeg;base64,")
    assert len(content["videos"]["rows"]) == len(content["activity"]["videos"]) == 3


def test_each_task_gets_its_own_metrics(tmp_path: Path) -> None:
    write_run(tmp_path / "run", NAMES)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"split": "val", "epoch": 3, "step": 60, "map": 12.5}\n')
    text = str(report_content(write_report(tmp_path / "run", METRICS))["charts"])
    assert "mAP" not in text and "top-1" in text
    text = str(report_content(write_report(tmp_path / "run", MultiLabel.reported_metrics()))["charts"])
    assert "mAP" in text and "top-1" not in text


def test_damaged_files_cost_their_sections_only(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, NAMES)
    (folder / "config_test.yaml").unlink()
    others = [path for path in folder.rglob("*.*") if path.name != CONFIG]
    for damage in (
        "[1, 2",
        "{",
        '{"a": 1}',
        "[3]",
        '"text"',
        '[{"frames": "x"}]',
        "\x00\xff",
        'label,\n"x',
        "path,lost\na",
    ):
        for path in others:
            path.write_bytes(damage.encode("latin-1"))
        content = report_content(write_report(folder, METRICS))
        assert content["config"]["rows"] and content["charts"] == []
    assert content["problems"]
    for path in others:
        path.unlink()
    (folder / CONFIG).write_text("{")
    content = report_content(write_report(folder, METRICS))
    assert content["summary"] == [None, None, None] and CONFIG in content["problems"][0]


def test_a_report_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    (tmp_path / REPORT).mkdir()
    (tmp_path / REPORT / "file").touch()
    assert report_run(cfg, RunStatus.FINISHED) == {}
    assert f"Cannot write {tmp_path / REPORT}" in caplog.text


def test_state_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, NAMES)
    (folder / "event_results.json").unlink()

    def state() -> str:
        return str(report_content(write_report(folder))["run"]["state"])

    assert report_content(write_report(folder))["run"]["progress"] == "epoch 3 of 4" and state() == "finished"
    (folder / "test_results.json").unlink()
    assert state() == "stopped"
    hold = (
        "import sys, pathlib; from slowfast.utils.locks import TRAINING, exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1]), TRAINING): print(1, flush=True); input()"
    )
    line = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        assert state() == "running"
    assert state() == "stopped"
    with exclusive_lock(folder, TRAINING):
        assert not is_locked(folder, TRAINING)  # by this process itself
    (folder / "event_results.json").write_text('{"finished": false}')
    assert state() == "stopped"
    assert report_content(write_report(folder, state=RunStatus.RUNNING))["run"]["state"] == "running"


def test_updates_take_a_small_share_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [0.0], []

    def write(*_: object) -> None:
        written.append(now[0])
        now[0] += 1.0  # seconds

    monkeypatch.setattr(run_report, "report_run", write)
    monkeypatch.setattr(run_report.time, "monotonic", lambda: now[0])
    task = Classification(2, lambda *_: None)  # type: ignore[arg-type, return-value]
    log = TrainingLog(get_cfg(), World(), task, Trackers(), 1)
    for _ in range(1000):
        log.update_report()
        now[0] += 0.5
    assert written[0] == 0.0 and len(written) == pytest.approx(now[0] / 21, rel=0.05)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    write_run(folder, NAMES)
    assert main(["report", str(folder)]) == 0
    assert str(folder / REPORT) in capsys.readouterr().out
    assert "top-1" in {chart["title"] for chart in report_content(folder / REPORT)["charts"]}
    (folder / "config.yaml").write_text("NO_SUCH_KEY: 1")
    assert main(["report", str(folder)]) == 0
    [problem] = report_content(folder / REPORT)["problems"]
    assert "NO_SUCH_KEY" in problem
    for wrong, part in ((tmp_path, "contains none of"), (tmp_path / "nowhere", "is not a folder")):
        assert main(["report", str(wrong)]) == 2
        err = capsys.readouterr().err
        assert part in err and err.count("\n") == 1


@settings(max_examples=25)
@given(st.lists(st.floats(0, 100) | st.just(float("nan")), max_size=2000))
def test_thinned_curves_keep_their_means(values: list[float]) -> None:
    y = np.array(values, np.float64)
    series = thin("curve", np.arange(len(y), dtype=float), y)
    assert len(series.x) == len(series.y) <= MAX_POINTS and list(series.x) == sorted(series.x)
    size = -(-len(y) // MAX_POINTS)
    for n, mean in enumerate(series.y):
        part = [value for value in values[n * size : (n + 1) * size] if value == value]
        assert (mean is None) == (not part)
        assert mean is None or mean == pytest.approx(sum(part) / len(part), rel=1e-5)


@settings(max_examples=25)
@given(st.integers(1, 3000), st.integers(1, 5))
def test_activity_over_time_keeps_its_mean(intervals: int, last: int) -> None:
    starts, frames = 5 * np.arange(intervals), 5 * (intervals - 1) + last
    shares = np.random.default_rng(intervals).uniform(0, 100, (intervals, 2))
    activity = PatchActivity("camera", picture(0, 16, 16), np.eye(4), starts, starts / 25, shares, frames).as_dict()
    counts = np.diff([*activity["starts"], frames])
    merged = np.frombuffer(base64.b64decode(activity["shares"]), "<u2").reshape(2, -1) / SHARE_LEVELS
    assert len(counts) <= MAX_BINS and counts.sum() == frames
    weights = np.diff([*starts, frames])
    np.testing.assert_allclose(merged @ counts / frames, weights @ shares / frames, atol=0.002)
    assert list(base64.b64decode(activity["heat"])[:6]) == [255, 0, 0, 0, 0, 255]
    seconds = np.array(activity["times"]) * {"s": 1, "min": 60, "h": 3600}[activity["time_unit"]]
    np.testing.assert_allclose(seconds, np.array(activity["starts"]) / 25, rtol=1e-5)


@pytest.mark.parametrize(("seconds", "unit"), [(0.0, "s"), (170.0, "s"), (200.0, "min"), (86400.0, "h")])
def test_unit_of_the_time_axis(seconds: float, unit: str) -> None:
    activity = PatchActivity("camera", picture(0, 8, 8), np.eye(2), np.arange(2), np.array([0, seconds]), np.eye(2), 2)
    times, shown = activity.times
    assert shown == unit and times[-1] * {"s": 1, "min": 60, "h": 3600}[unit] == seconds


def test_most_confident_mistakes(tmp_path: Path) -> None:
    predictions = write_run(tmp_path / "run", [f"class {n}" for n in range(40)])
    chosen = most_confident(predictions, MISTAKES_COUNT)
    assert len(chosen) == MISTAKES_COUNT and not any(one.hit(1) for one in chosen)
    left = [one for one in predictions if one.best and not one.hit(1) and one not in chosen]
    assert min(one.best[0][1] for one in chosen) >= max(one.best[0][1] for one in left)


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1), min_size=1))
def test_csv_files_are_read_as_they_were_written(cells: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        texts: list[str] = []
        patch.setattr("slowfast.utils.text_files.atomic_write_text", lambda _, text: texts.append(text))
        header = [f"column {n}" for n in range(len(cells))]
        write_csv(Path("file.csv"), header, [cells])
    assert [list(row.values()) for row in read_csv(texts[0])] == [cells]
