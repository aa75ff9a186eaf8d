"""Trackers, verified by reading their output: event files, offline wandb runs, a local MLflow store."""

from __future__ import annotations

import itertools
import logging
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slowfast.cli.validate_components import validate_components
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine.run_report import ValidationMatrices
from slowfast.engine.tasks.base import Evaluator
from slowfast.engine.tasks.classification import TOP1, TOP5
from slowfast.engine.trackers import TRACKER_REGISTRY, NamedImage, RunInfo, Tracker, Trackers
from slowfast.engine.trackers.base import FINISHED, STOPPED
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World
from slowfast.visualization.results import VideoPrediction
from slowfast.visualization.sheets import most_confident

SECRETS = ("hunter2", "s3cret", "0123abcd")
IMAGE = np.full((8, 8, 3), 200, np.uint8)


def config(output: Path, *overrides: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", str(output), "SOLVER.BASE_LR", 0.25, *overrides])
    return cfg


def row(step: int, split: str = "train", **values: float) -> dict[str, Any]:
    bookkeeping = {"epoch": step / 2, "step": step, "left_s": 3.0, "videos": 8, "failed": 0, "seconds": 1.0}
    return {"split": split, **bookkeeping, "loss": 1 / step, "top1": 10.0 * step, **values}


def record(cfg: ConfigNode, done: int, steps: range, outcome: str) -> Trackers:
    """Record the steps of a training that has done some steps before."""
    trackers = Trackers(cfg)
    trackers.open([TOP1, TOP5], done)
    for step in steps:
        trackers.write(row(step, lr=0.1, data_s=0.5))
    trackers.write(row(steps[-1], "val", top5=50.0))
    trackers.close(outcome)
    return trackers


def wandb_records(output: Path) -> list[Any]:
    """Read the records of all offline runs in a folder: LevelDB's log format, with wandb's header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(output.glob("wandb/offline-run-*/*.wandb")):
        data, at, payload = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if (left := 32768 - at % 32768) < 7:  # the padding at the end of a block
                at += left
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            payload += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # a whole record, or its last part
                found.append(Record.FromString(payload))
                payload = b""
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of 2 + 2 steps with an interruption, and a test, by all three trackers; addresses with secrets."""
    output = tmp_path_factory.mktemp("recorded")
    address = f"https://me:{SECRETS[0]}@host/w.pyth?token={SECRETS[1]}"
    cameras = f"rtsp://admin:{SECRETS[0]}@10.0.0.1/1"
    cfg = config(output, "TRACKING.BACKENDS", "[tensorboard,wandb,mlflow]", "WANDB.MODE", "offline")
    cfg.merge_from_list(["TRAIN.CHECKPOINT_FILE_PATH", address, "DATA.PATH_PREFIX", cameras])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run_net.py", address])
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        record(cfg, 0, range(1, 4), STOPPED)  # the third step is not in the checkpoint
        record(cfg, 2, range(3, 5), STOPPED)
        (output / "metrics.jsonl").write_text('{"split": "train", "step": 4}\n')
        trackers = Trackers(cfg)
        trackers.open([TOP1, TOP5])
        trackers.results({"top1": 12.5, "top5": 62.5, "k": 5})
        trackers.image("test/confusion_matrix", IMAGE)
        caption = f"{cameras}?sig={SECRETS[2]}: label a, prediction b (90 %)"
        wrong = [NamedImage(IMAGE + i, f"class a/{i}.mp4", caption) for i in (1, 2)]
        trackers.images("test/wrong_predictions", wrong)
        trackers.close(FINISHED)
    return output


CURVES = {"train/loss", "train/top1_acc", "val/loss", "val/top1_acc", "val/top5_acc", "lr", "system/data_seconds"}
RESULTS = {"test/top1_acc", "test/top5_acc"}


def test_tensorboard_has_curves_hparams_config_and_images(recorded: Path) -> None:
    board = EventAccumulator(str(recorded / "tensorboard"), {"images": 0, "tensors": 0}).Reload()
    assert set(board.Tags()["scalars"]) == CURVES | RESULTS
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4]  # the third step once
    assert board.Scalars("val/top1_acc")[-1].value == 40 and board.Scalars("test/top1_acc")[0].step == 4
    names = [f"test/wrong_predictions/00{i} class a/{i}.mp4" for i in (1, 2)]
    assert set(board.Tags()["images"]) == {"test/confusion_matrix", *names}
    text = board.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "    SOLVER:\n" in text and "BASE_LR: 0.25" in text
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"SOLVER.BASE_LR" in content and b"MODEL.MODEL_NAME" in content and b"OUTPUT_DIR" not in content
    assert b"val/top1_acc" in board.SummaryMetadata("_hparams_/experiment").plugin_data.content


def test_wandb_goes_on_in_one_offline_run(recorded: Path) -> None:
    records = wandb_records(recorded)
    assert len({one.run.run_id for one in records if one.HasField("run")}) == 1
    rows = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in one.history.item}
        for one in records
        if one.HasField("history")
    ]
    assert {name for one in rows for name in one if not name.startswith(("_", "test/conf", "test/wrong"))} == {
        *CURVES,
        *RESULTS,
        "step",
    }
    assert [one["step"] for one in rows if "train/loss" in one] == ["1", "2", "3", "3", "4"]
    config_text = str([one for one in records if one.HasField("run")][0].run.config)
    assert "SOLVER.BASE_LR" in config_text and "0.25" in config_text and "SOLVER:" in config_text
    assert len(list(recorded.glob("wandb/offline-run-*/files/media/images/test/*.png"))) == 3
    assert any("label a, prediction b (90 %)" in one.get("test/wrong_predictions/captions", "") for one in rows)
    assert [one.exit.exit_code for one in records if one.HasField("exit")] == [1, 1, 0]


def test_mlflow_goes_on_in_one_run_of_a_local_store(recorded: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(recorded / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("slowfast")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == recorded.name
    assert set(run.data.metrics) == CURVES | RESULTS and run.data.metrics["val/top1_acc"] == 40
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == [1, 2, 3, 3, 4]
    assert run.data.params["SOLVER.BASE_LR"] == "0.25" and len(run.data.params) > 200
    files = {path.path for path in client.list_artifacts(run.info.run_id, "test/wrong_predictions")}
    assert files == {f"test/wrong_predictions/00{i} class a_{i}.mp4.png" for i in (1, 2)}
    tops = {path.path for path in client.list_artifacts(run.info.run_id)}
    assert "config.yaml" in tops
    assert "test/confusion_matrix.png" in {path.path for path in client.list_artifacts(run.info.run_id, "test")}


def test_no_secret_is_in_any_file(recorded: Path) -> None:
    files = [path for path in recorded.rglob("*") if path.is_file()]
    assert len(files) > 200
    for path in files:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in SECRETS), path
    assert any(b"***@" in path.read_bytes() for path in recorded.glob("wandb/*/*.wandb"))


def test_a_resumed_training_goes_on_in_its_run_and_a_new_one_starts_another(tmp_path: Path) -> None:
    cfg = config(tmp_path, "TRACKING.BACKENDS", "[lines]")
    Lines.started.clear()
    for done in (0, 2, 0):
        record(cfg, done, range(done + 1, done + 3), STOPPED)
    assert [run.run_id for run in Lines.started] == ["", "1", ""]
    assert [run.first_step for run in Lines.started] == [1, 3, 1]


class Lines(Tracker):
    """Tracker of a user that starts and raises on request."""

    started: list[RunInfo] = []

    @classmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> Lines:
        cls.started.append(run)
        return cls()

    @property
    def run_id(self) -> str:
        return "1"

    def scalars(self, values: Any, step: int) -> None:
        if step == 99:
            raise OSError("no network to https://me:hunter2@host")


TRACKER_REGISTRY.register(Lines, name="lines")


def test_only_the_first_process_records(tmp_path: Path) -> None:
    trackers = Trackers.from_config(config(tmp_path, "TRACKING.BACKENDS", "[lines]"), World(rank=1, size=2))
    trackers.open([TOP1], 0)
    trackers.write(row(1))
    assert not trackers.active and not list(tmp_path.iterdir())


def test_a_tracker_that_fails_is_reported_once_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("WANDB_API_KEY", "short")  # refused without asking the server
    cfg = config(tmp_path, "TRACKING.BACKENDS", "[lines,wandb,mlflow,tensorboard]")
    cfg.merge_from_list(["MLFLOW.TRACKING_URI", "http://me:hunter2@127.0.0.1:9"])
    trackers = Trackers(cfg)
    with caplog.at_level(logging.WARNING):
        trackers.open([TOP1], 0)
        for step in (1, 99, 100):
            trackers.write(row(step))
        trackers.close(FINISHED)
    warnings = [one.getMessage() for one in caplog.records if one.name == "slowfast"]
    assert [text.split()[1] for text in warnings] == ["wandb", "mlflow", "lines"]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 99, 100]


@pytest.mark.filterwarnings("error")
def test_a_full_disk_turns_tensorboard_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    trackers = Trackers(config(tmp_path, "TENSORBOARD.ENABLE", True))
    trackers.open([TOP1], 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for step in range(1, 10_000):
            trackers.write(row(step))
        trackers.close(FINISHED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caplog.text.count("Tracker tensorboard failed") == 1
    assert capfd.readouterr().err.count("Traceback") == 0


def test_trackers_that_cannot_be_used_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="TRACKING.BACKENDS: unknown value 'wandbb'. Did you mean 'wandb'"):
        validate_components(config(tmp_path, "TRACKING.BACKENDS", "[wandbb]"))
    monkeypatch.setattr("slowfast.engine.trackers.backends.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="mlflow-skinny supports no databases"):
        TRACKER_REGISTRY.get("mlflow").check(config(tmp_path, "MLFLOW.TRACKING_URI", "sqlite:///a.db"))
    monkeypatch.setattr("slowfast.engine.trackers.base.find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(ConfigError, match=rf'pip install "slowfast\[{name}\]"'):
            TRACKER_REGISTRY.get(name).check(get_cfg())


def test_the_most_confident_wrong_predictions_are_chosen() -> None:
    predictions = [
        VideoPrediction(0, "right.mp4", 1, [(1, 0.9)]),
        VideoPrediction(1, "unreadable.mp4", 1),
        VideoPrediction(2, "low.mp4", 1, [(0, 0.4), (1, 0.3)]),
        VideoPrediction(3, "high.mp4", (1, 2), [(0, 0.8)]),
        VideoPrediction(4, "several.mp4", (1, 2), [(2, 0.95)]),
    ]
    assert [one.name for one in most_confident(predictions, 9)] == ["high.mp4", "low.mp4"]
    assert [one.name for one in most_confident([*predictions, "of another task"], 1)] == ["high.mp4"]


@pytest.mark.parametrize("drawn", [IMAGE, None, RuntimeError("no fonts")])
def test_confusion_matrices_of_validations(
    drawn: np.ndarray | Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first and the last one at least; a task may have none, and a failure is reported once."""
    tags: list[str] = []
    trackers, evaluator = Mock(spec=Trackers, active=True), Mock(spec=Evaluator)
    trackers.image.side_effect = lambda tag, _: tags.append(tag)
    evaluator.confusion_image.side_effect = [drawn] * 3
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr("slowfast.engine.run_report.time", clock)
    matrices = ValidationMatrices(trackers, lambda: ["a", "b"])
    for last in (False, False, True):  # the second one is too early
        matrices.record(evaluator, last)
    assert tags == (["val/confusion_matrix"] * 2 if isinstance(drawn, np.ndarray) else [])
    assert caplog.text.count("no fonts") == isinstance(drawn, Exception)
