"""Complete runs through the command line: output files, kill and resume, several processes, failures."""

from __future__ import annotations

import csv
import functools
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command, environment, run_cold, run_net, tiny_settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slowfast.config.defaults import get_cfg
from slowfast.engine import checkpoints
from slowfast.utils.machine import has_fast_matmul
from tests.report_content import report_content

pytestmark = pytest.mark.slow

Row = dict[str, float]


def metrics(output: Path, split: str = "train") -> list[Row]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def weights(output: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.find_last(output)
    assert path is not None
    return checkpoints.read_checkpoint(path)["model_state"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def full(data: Path, output: Path, *more: object) -> list[object]:
    """Everything random at once: augmentation, mixing, stochastic depth, averaging, accumulation."""
    return [
        *tiny_settings(data, output),
        *("AUG.ENABLE", True, "AUG.NUM_SAMPLE", 2, "MIXUP.ENABLE", True, "MODEL.LOSS_FUNC", "soft_cross_entropy"),
        *("MORPH.DROP_DEPTH_RATE", 0.5, "MODEL.EMA", True, "MODEL.EMA_DECAY", 0.9, "TRAIN.ACCUMULATION_STEPS", 2),
        *more,
    ]


@pytest.fixture(scope="module")
def finished(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    output = tmp_path_factory.mktemp("finished")
    done = run_net(full(kinetics_folder, output))
    assert done.returncode == 0, done.stderr
    assert "top-1" in done.stdout and str(output / "predictions.csv") in done.stdout
    assert done.stdout.rstrip().endswith(str(output / "report.html"))
    return output


def test_a_run_leaves_its_files(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert names >= {
        *("config.yaml", "stdout.log", "metrics.jsonl", "test_results.json", "predictions.csv"),
        *("curves.png", "confusion.png", "contact_sheet.png"),
        *(f"checkpoints/checkpoint_epoch_0000{epoch}.pyth" for epoch in (1, 2, 3)),
        "checkpoints/checkpoint_best.pyth",
    }
    assert not any(name.endswith(".tmp") for name in names)
    page = report_content(finished / "report.html")
    assert page["problems"] == [] and page["run"]["state"] == "finished" and page["run"]["progress"] == "epoch 3 of 3"
    assert page["confusion"] and page["per_class"] and page["mistakes"] and page["config"] and len(page["charts"]) == 7
    cfg = get_cfg()
    cfg.merge_from_file(str(finished / "config.yaml"))
    assert cfg.OUTPUT_DIR == str(finished) and cfg.MODEL.EMA
    results = json.loads((finished / "test_results.json").read_text())
    assert (results["videos"], results["failed"], results["views"], results["crops"]) == (8, 0, 2, 3)
    with (finished / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    hits = sum(row["label"] == row["prediction"] for row in rows)
    assert len(rows) == 8 and results["top1"] == pytest.approx(100 * hits / 8)
    assert [row["step"] for row in metrics(finished)] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in metrics(finished, "val")] == [1, 2, 3]
    last = checkpoints.find_last(finished)
    assert last is not None and len(checkpoints.read_checkpoint(last)["class_names"]) == 8
    assert all(0 < row["loss"] < 10 for row in metrics(finished, "val"))


def test_the_averaged_weights_are_tested(finished: Path, kinetics_folder: Path, tmp_path: Path) -> None:
    path = checkpoints.find_last(finished)
    assert path is not None
    state = checkpoints.read_checkpoint(path)
    assert not same(state["model_state"], state["ema_state"])
    averaged = tmp_path / "averaged.pyth"
    torch.save({"model_state": state["ema_state"]}, averaged)
    scores = {}
    for name, options in (("ema", []), ("raw", ["TEST.CHECKPOINT_WEIGHTS", "raw"]), ("given", [])):
        file = averaged if name == "given" else path
        settings = tiny_settings(kinetics_folder, tmp_path / name)
        done = run_net([*settings, "TRAIN.ENABLE", False, "TEST.CHECKPOINT_FILE_PATH", file, *options])
        assert done.returncode == 0, done.stderr
        scores[name] = (tmp_path / name / "predictions.csv").read_text()
    assert scores["ema"] == scores["given"] == (finished / "predictions.csv").read_text()
    assert scores["raw"] != scores["ema"]


def test_killed_anywhere_it_ends_with_the_same_weights(finished: Path, kinetics_folder: Path, tmp_path: Path) -> None:
    line = command(full(kinetics_folder, tmp_path))
    chance = random.Random(0)
    kills = 0
    while kills < 3:
        process = subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_steps(tmp_path, process, chance.randint(1, 4) if kills == 0 else 3 + kills)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    half = checkpoints.checkpoint_folder(tmp_path) / ".checkpoint_epoch_00009.pyth.tmp"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"killed while writing")
    done = run_net(full(kinetics_folder, tmp_path))
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path), weights(finished))
    assert not half.exists()
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    losses = [[row["loss"] for row in metrics(output)] for output in (tmp_path, finished)]
    assert losses[0] == losses[1]


def test_sigterm_saves_in_the_middle_of_an_epoch(finished: Path, kinetics_folder: Path, tmp_path: Path) -> None:
    # One step into the epoch after the checkpoint of epoch 1: the next step ends in the middle of epoch 2.
    line = command(full(kinetics_folder, tmp_path))
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True)
    _wait_for_steps(tmp_path, process, 1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Received SIGTERM, checkpoint saved" in output
    steps = len(metrics(tmp_path))
    last = checkpoints.find_last(tmp_path)
    assert last is not None and steps < 6
    state = checkpoints.read_checkpoint(last)
    assert state["epoch"] * 2 + state["step"] == steps
    assert report_content(tmp_path / "report.html")["run"]["state"] == "stopped"
    done = run_net(full(kinetics_folder, tmp_path))
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path), weights(finished))


def _wait_for_steps(output: Path, process: subprocess.Popen[str], steps: int) -> None:
    log = output / "metrics.jsonl"
    for _ in range(1200):
        if process.poll() is not None:
            raise AssertionError(f"the run ended by itself with {process.returncode}")
        if log.is_file() and log.read_text().count('"train"') >= steps:
            return
        time.sleep(0.05)
    raise AssertionError("no steps in a minute")


def test_two_processes_are_one_with_the_whole_batch(kinetics_folder: Path, tmp_path: Path) -> None:
    options = ["BN.NORM_TYPE", "sync_batchnorm", "SOLVER.MAX_EPOCH", 2, "TRAIN.ACCUMULATION_STEPS", 1]
    # AdamW would enlarge differences of rounding where a gradient is nearly 0.
    options += ["SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.BASE_LR", 0.05]
    for processes in (1, 2):
        run = run_net if processes == 1 else functools.partial(run_cold, processes=processes)
        done = run(full(kinetics_folder, tmp_path / str(processes), *options))
        assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        rows = [metrics(tmp_path / name, split) for name in ("1", "2")]
        assert len(rows[0]) == len(rows[1]) > 0
        for one, two in zip(*rows, strict=True):
            assert one["step"] == two["step"] and one["top1"] == two["top1"]
            assert one.get("loss", 0) == pytest.approx(two.get("loss", 0), rel=1e-4)
    one, two = (weights(tmp_path / name) for name in ("1", "2"))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
    results = [json.loads((tmp_path / name / "test_results.json").read_text()) for name in ("1", "2")]
    assert results[0]["videos"] == results[1]["videos"] == 8 and results[0]["top1"] == results[1]["top1"]


def test_processes_and_batch_size_do_not_change_a_test(finished: Path, kinetics_folder: Path, tmp_path: Path) -> None:
    tables, scores = set(), []
    for name, processes, batch in (("a", 1, 1), ("b", 1, 7), ("c", 3, 64)):
        settings = [*tiny_settings(kinetics_folder, tmp_path / name), "TRAIN.ENABLE", False, "TEST.BATCH_SIZE", batch]
        settings += ["TEST.SAVE_RESULTS_PATH", "scores.npz"]
        done = run_net([*settings, "TEST.CHECKPOINT_FILE_PATH", checkpoints.find_last(finished)], processes)
        assert done.returncode == 0, done.stderr
        tables.add((tmp_path / name / "predictions.csv").read_text())
        with np.load(tmp_path / name / "scores.npz", allow_pickle=False) as file:
            scores.append(dict(file))
    assert len(tables) == 1
    with (tmp_path / "a" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for arrays in scores:
        assert arrays["names"].tolist() == [row["path"] for row in rows]
        assert arrays["labels"].tolist() == [int(row["label"]) for row in rows]
        np.testing.assert_allclose(arrays["logits"], scores[0]["logits"], rtol=0, atol=1e-5)
    best = torch.from_numpy(scores[0]["logits"]).softmax(1).max(1)
    assert best.indices.tolist() == [int(row["prediction"]) for row in rows]
    assert best.values.tolist() == pytest.approx([float(row["score"]) for row in rows], abs=1e-4)


# Each step multiplies the weights by -BASE_LR * WEIGHT_DECAY.
DIVERGING = ["SOLVER.BASE_LR", 1e6, "SOLVER.WEIGHT_DECAY", 1e6, "SOLVER.MAX_EPOCH", 50]


def test_a_failing_process_ends_all_with_its_error(kinetics_folder: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    settings = [*tiny_settings(kinetics_folder, tmp_path), *DIVERGING]
    done = run_cold(settings, processes=2, timeout=90)
    assert done.returncode != 0
    assert "TrainingDiverged: Loss is" in done.stderr
    assert time.monotonic() - start < 80


def test_nan_says_step_rate_and_batch(kinetics_folder: Path, tmp_path: Path) -> None:
    done = run_net([*tiny_settings(kinetics_folder, tmp_path), *DIVERGING])
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert "Loss is" in message and "learning rate 1e+06" in message and ".mp4" in message and "step" in message


def test_random_weights_are_tested_with_a_warning(kinetics_folder: Path, tmp_path: Path) -> None:
    done = run_net([*tiny_settings(kinetics_folder, tmp_path), "TRAIN.ENABLE", False, "NUM_GPUS", 8])
    assert done.returncode == 0, done.stderr
    assert "random weights" in done.stdout and "NUM_GPUS is 8" in done.stdout


def test_broken_videos_are_listed_and_count_as_wrong(kinetics_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lines = (kinetics_folder / "test.csv").read_text().splitlines()
    for line in lines:
        name = line.rsplit(" ", 1)[0]
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(kinetics_folder / name, data / name)
    (data / "empty.mp4").touch()
    (data / "text.mp4").write_text("this is no video\n" * 50)
    whole = (kinetics_folder / lines[0].rsplit(" ", 1)[0]).read_bytes()
    (data / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (data / "test.csv").write_text("\n".join([*lines, "empty.mp4 0", "text.mp4 1", "cut.mp4 2", "gone.mp4 3"]) + "\n")
    settings = [*tiny_settings(data, tmp_path / "out"), "TRAIN.ENABLE", False]
    done = run_net([*settings, "TEST.SAVE_RESULTS_PATH", "scores.pkl"])
    assert done.returncode == 0, done.stderr
    assert "not as a pickle" in done.stdout and not (tmp_path / "out" / "scores.pkl").exists()
    with np.load(tmp_path / "out" / "scores.npz", allow_pickle=False) as arrays:
        nan = np.isnan(arrays["logits"]).all(1)
        assert nan.sum() == np.isnan(arrays["logits"]).any(1).sum() and nan[[8, 9, 11]].all() and not nan[:8].any()
    results = json.loads((tmp_path / "out" / "test_results.json").read_text())
    assert results["videos"] == 12
    failed = (tmp_path / "out" / "failed.csv").read_text()
    for name in ("empty.mp4", "text.mp4", "gone.mp4", "cut.mp4"):
        assert name in failed
    assert results["failed"] >= 3 and "failed videos count as wrong" in done.stdout
    with (tmp_path / "out" / "predictions.csv").open() as file:
        hits = sum(row["label"] == row["prediction"] for row in csv.DictReader(file))
    assert results["top1"] == pytest.approx(100 * hits / 12, abs=0.01)


def test_precise_statistics_and_tensorboard(kinetics_folder: Path, tmp_path: Path) -> None:
    options = [
        "BN.USE_PRECISE_STATS",
        True,
        "BN.NUM_BATCHES_PRECISE",
        2,
        "TENSORBOARD.ENABLE",
        True,
        "SOLVER.MAX_EPOCH",
        1,
    ]
    done = run_net([*tiny_settings(kinetics_folder, tmp_path), *options])
    assert done.returncode == 0, done.stderr
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    images = {name.rpartition("/")[0] if "wrong" in name else name for name in board.Tags()["images"]}
    wrong = "test/wrong_predictions/001 videos"  # and the rest of the path
    assert images >= {"first_batch/train", "first_batch/test", "test/confusion_matrix"}
    assert any(name.startswith(wrong) for name in images)
    assert {"train/loss", "val/top1_acc", "test/top1_acc", "lr"} <= set(board.Tags()["scalars"])
    plain = tmp_path / "plain"
    assert run_net([*tiny_settings(kinetics_folder, plain), "SOLVER.MAX_EPOCH", 1]).returncode == 0
    key = "patch_embed1.norm1.running_var"
    assert not torch.equal(weights(tmp_path)[key], weights(plain)[key])
    assert torch.equal(weights(tmp_path)["head.weight"], weights(plain)["head.weight"])


def test_fine_tuning_takes_the_weights_and_a_new_head(finished: Path, kinetics_folder: Path, tmp_path: Path) -> None:
    file = checkpoints.find_last(finished)
    options = ["TRAIN.CHECKPOINT_FILE_PATH", file, "TRAIN.CHECKPOINT_EPOCH_RESET", True, "MODEL.NUM_CLASSES", 9]
    (tmp_path / "data").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text((kinetics_folder / f"{split}.csv").read_text())
    settings = [*tiny_settings(kinetics_folder, tmp_path / "out"), "DATA.PATH_TO_DATA_DIR", tmp_path / "data"]
    done = run_net([*settings, "SOLVER.MAX_EPOCH", 1, "SOLVER.BASE_LR", 1e-30, "SOLVER.COSINE_END_LR", 0.0, *options])
    assert done.returncode == 0, done.stderr
    assert "head" in done.stdout
    tuned, start = weights(tmp_path / "out"), weights(finished)
    assert tuned["head.weight"].shape[0] == 9
    assert torch.equal(tuned["norm.weight"], start["norm.weight"])


def test_half_precision_trains(kinetics_folder: Path, tmp_path: Path) -> None:
    """Or float32 does, with one warning, on a CPU that has no instructions for the dtype."""
    losses: dict[str, np.ndarray] = {}
    used = [dtype for dtype in ("bfloat16", "float16") if has_fast_matmul(getattr(torch, dtype), torch.device("cpu"))]
    for dtype in ("float32", "bfloat16", "float16"):
        half = ["TRAIN.MIXED_PRECISION", True, "TRAIN.AMP_DTYPE", dtype] if dtype != "float32" else []
        settings = [*tiny_settings(kinetics_folder, tmp_path / dtype), *half]
        done = run_net([*settings, "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Running in float32") == (dtype != "float32" and dtype not in used)
        losses[dtype] = np.array([row["loss"] for row in metrics(tmp_path / dtype)])
        last = checkpoints.find_last(tmp_path / dtype)
        assert last is not None
        assert bool(checkpoints.read_checkpoint(last)["scaler_state"]) == (dtype == "float16" and dtype in used)
    for dtype, limit in (("bfloat16", 0.05), ("float16", 0.01)):
        error = np.abs(losses[dtype] / losses["float32"] - 1)
        assert 0 < error.max() < limit if dtype in used else not error.any()
