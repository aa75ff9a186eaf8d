"""Example task in a user file: registered, trained, tested and resumed without changing the package."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from demo_data.settings import SPLITS
from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.datasets.index.entries import LABEL_FORMATS
from slowfast.engine import checkpoints
from slowfast.engine.tasks import TASK_REGISTRY, Task
from slowfast.engine.tasks.pretraining import Pretraining
from slowfast.errors import ConfigError, IndexFileError, UserError
from slowfast.inference.predictor import Predictor
from tests.conftest import ROOT, tiny_settings
from tests.csv_files import read_rows

EMPTY = ROOT / "tests" / "empty.yaml"
EXAMPLE = ROOT / "examples" / "speed_regression.py"


@pytest.fixture(scope="module", autouse=True)
def example() -> Iterator[None]:
    """Import the example as `--import` does; undone afterwards."""
    spec = importlib.util.spec_from_file_location("speed_regression", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["speed_regression"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield
    del sys.modules["speed_regression"], TASK_REGISTRY._obj_map["SpeedRegression"], LABEL_FORMATS["SpeedRegression"]


@pytest.fixture(scope="module")
def data(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of the Kinetics folder, each with a number."""
    folder = tmp_path_factory.mktemp("speeds")
    for split in SPLITS:
        paths = [line.split()[0] for line in (kinetics_folder / f"{split}.csv").read_text().splitlines()]
        lines = [f"{kinetics_folder / path} {i % 8 / 2}\n" for i, path in enumerate(paths)]
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


def settings(data: Path, output: Path, *more: object) -> list[object]:
    task = ["MODEL.TASK", "SpeedRegression", "MODEL.NUM_CLASSES", 1, "DATA.PATH_PREFIX", ""]
    return [*tiny_settings(data, output), *task, "DATA_LOADER.NUM_WORKERS", 0, "SOLVER.BASE_LR", 1e-2, *more]


def test_train_test_and_reports(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(load_config(EMPTY, settings(data, tmp_path)))
    out = capsys.readouterr().out
    assert "validation mean error" in out and "px/frame, loss " in out and "px/frame" in out and "top-1" not in out
    rows = read_rows(tmp_path / "predictions.csv")
    assert [float(row["label"]) for row in rows] == [i % 8 / 2 for i in range(8)]
    assert {row["class_name"] + row["score"] + row["five_best"] for row in rows} == {""}
    errors = [abs(float(row["prediction"]) - float(row["label"])) for row in rows]
    found = json.loads((tmp_path / "test_results.json").read_text())
    assert found["mae"] == pytest.approx(np.mean(errors), abs=1e-3) and "top1" not in found
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    validations = [row["mae"] for row in log if row["split"] == "val"]
    assert all("mae" in row for row in log) and len(validations) == 3
    state = checkpoints.read_checkpoint(checkpoints.find_last(tmp_path))
    assert state["best_metric"] == min(validations) and state["best_epoch"] == 1 + int(np.argmin(validations))
    assert (tmp_path / "curves.png").is_file() and not (tmp_path / "confusion.png").exists()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["MODEL.NUM_CLASSES", 2], "must be 1 for MODEL.TASK SpeedRegression"),
        (["MODEL.TASK", "SpeedRegresion"], "Did you mean 'SpeedRegression'"),
        (["TEST.SAVE_RESULTS_PATH", "scores.npz"], "has no class scores to save"),
        (["DISTILL.ENABLE", True], "DISTILL"),
    ],
)
def test_impossible_settings(data: Path, tmp_path: Path, more: list[object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(EMPTY, settings(data, tmp_path, *more))


def test_predictions_without_classes_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="MODEL.TASK SpeedRegression has no class scores"):
        Predictor.from_config(load_config(EMPTY, settings(data, tmp_path)))


def test_a_broken_label_says_what_the_task_expects(data: Path, tmp_path: Path) -> None:
    for name in SPLITS:
        (tmp_path / f"{name}.csv").write_text("a.mp4 fast\n")
    with pytest.raises(IndexFileError, match="Expected path label with a speed from 0, in pixels per frame"):
        run(load_config(EMPTY, settings(tmp_path, tmp_path / "out")))


def test_a_task_without_evaluation_is_not_tested(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASK_REGISTRY.get("SpeedRegression"), "evaluator", Task.evaluator)
    with pytest.raises(ConfigError, match="SpeedRegression has no evaluation. Set TEST.ENABLE False"):
        load_config(EMPTY, settings(data, tmp_path))


def test_only_tasks_under_new_names_are_registered() -> None:
    with pytest.raises(ConfigError, match="must derive from"):
        TASK_REGISTRY.register(dict)
    with pytest.raises(ConfigError, match="already taken"):
        TASK_REGISTRY.register(Pretraining, name="classification")
    assert issubclass(TASK_REGISTRY.get("SpeedRegression"), Task)
