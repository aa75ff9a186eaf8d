"""Event2Vec in the shared loops: train and test, pre-train and fine-tune, several processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from conftest import run_net
from event_files import event_settings, write_folder, write_recording

from slowfast.config.defaults import get_cfg
from slowfast.engine import checkpoints
from slowfast.engine.tasks.pretraining import pretext_of
from slowfast.models import build_model
from tests.report_content import report_content

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "data"
    write_folder(folder)
    write_recording(folder / "c" / "009.npz", 0, 0)  # fails in validation and test
    return folder


def state(output: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.find_last(output)
    assert path is not None
    return checkpoints.read_checkpoint(path)["model_state"]


def rows(output: Path, split: str) -> list[dict]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def test_train_and_test(data: Path, tmp_path: Path) -> None:
    augment = ["AUG.ENABLE", True, "AUG.NUM_SAMPLE", 2, "DVS.FLIP_X", True, "DVS.DROP", 0.3, "DVS.TRANSLATE", 2]
    done = run_net([*event_settings(data, tmp_path), *augment, "TRAIN.ACCUMULATION_STEPS", 2])
    assert done.returncode == 0, done.stderr
    assert "top-1 (average of 3 samples)" in done.stdout and "top-1 (single samples, as published)" in done.stdout
    report = json.loads((tmp_path / "test_results.json").read_text())
    assert report["videos"] == 6 and report["failed"] == 1 and report["views"] == 3
    assert report["top1_single"] == report["top1_view"] and report["top1_single_std"] == report["top1_view_std"]
    with (tmp_path / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert [row["path"] for row in predictions][::2] == ["a/008.npz", "b/008.npz", "c/008.npz"]
    assert "no events" in (tmp_path / "failed.csv").read_text()
    assert (tmp_path / "contact_sheet.png").is_file()
    assert all((tmp_path / f"first_batch_{split}.png").is_file() for split in ("train", "test"))
    page = report_content(tmp_path / "report.html")
    assert page["run"]["state"] == "finished" and page["confusion"]["unread"] == len(page["failures"]["rows"]) == 1
    assert all("events" in one["note"] and one["frames"] for one in page["mistakes"])


def test_drawing_the_first_batch_changes_no_weight(data: Path, tmp_path: Path) -> None:
    settings = ["TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 1, "AUG.ENABLE", True, "DVS.DROP", 0.3]
    for count in (0, 3):
        done = run_net([*event_settings(data, tmp_path / str(count)), *settings, "DATA_LOADER.DRAW_SAMPLES", count])
        assert done.returncode == 0, done.stderr
    none, some = state(tmp_path / "0"), state(tmp_path / "3")
    assert all(torch.equal(none[key], some[key]) for key in none)
    assert not list((tmp_path / "0").glob("first_batch*"))


def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    settings = ["TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 1]
    for processes in (1, 2):
        done = run_net([*event_settings(data, tmp_path / str(processes)), *settings], processes)
        assert done.returncode == 0, done.stderr
    one, two = state(tmp_path / "1"), state(tmp_path / "2")
    assert all(torch.allclose(one[key], two[key], rtol=1e-3, atol=1e-5) for key in one)


def test_pretrain_and_go_on_from_it(data: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    pretrain = ["EVENT2VEC.MASK_RATIO", 0.4, "TEST.ENABLE", False, "SOLVER.MAX_EPOCH", 4, "SOLVER.BASE_LR", 1e-2]
    done = run_net([*event_settings(data, before), *pretrain])
    assert done.returncode == 0, done.stderr
    losses = [row["loss"] for row in rows(before, "train")]
    assert losses[-1] < losses[0] and not rows(before, "val")
    page = report_content(before / "report.html")
    assert [chart["title"] for chart in page["charts"]] == ["loss", "top-1", "learning rate", "time per step"]
    assert page["run"]["state"] == "finished" and page["confusion"] is page["per_class"] is None
    file = checkpoints.find_last(before)
    settings = event_settings(data, after)
    go_on = ["TRAIN.CHECKPOINT_FILE_PATH", str(file), "TRAIN.CHECKPOINT_EPOCH_RESET", True, "SOLVER.BASE_LR", 1e-9]
    done = run_net([*settings, *go_on, "SOLVER.MAX_EPOCH", 1])
    assert done.returncode == 0, done.stderr
    started, learned = state(after), state(before)
    assert all(torch.allclose(started[key], learned[key], atol=1e-4) for key in learned)


def test_version_3_pre_trains_and_fine_tunes(data: Path, tmp_path: Path) -> None:
    """With augmentation by whole batches and TokenMix."""
    before, after = tmp_path / "before", tmp_path / "after"
    network = ["MODEL.MODEL_NAME", "Event2VecV3", "EVENT2VEC.LAYERS", 2, "SOLVER.MAX_EPOCH", 2]
    pretrain = ["EVENT2VEC.MASK_RATIO", 0.4, "TEST.ENABLE", False]
    done = run_net([*event_settings(data, before), *network, *pretrain])
    assert done.returncode == 0, done.stderr
    last = rows(before, "train")[-1]
    assert {"loss", "polarity", "error_y", "error_x", "exact", "near"} <= last.keys() and 0 <= last["near"] <= 100
    augment = ["AUG.ENABLE", True, "DVS.AUG_POLICY", "batch", "DVS.TRANSLATE", 2, "DVS.DROP_CHUNKS", "[2,4]"]
    mixing = ["EVENT2VEC.TOKEN_MIX", 0.5, "MODEL.LOSS_FUNC", "soft_cross_entropy"]
    start = ["TRAIN.CHECKPOINT_FILE_PATH", str(checkpoints.find_last(before)), "TRAIN.CHECKPOINT_EPOCH_RESET", True]
    done = run_net([*event_settings(data, after), *network, *augment, *mixing, *start])
    assert done.returncode == 0, done.stderr
    assert json.loads((after / "test_results.json").read_text())["videos"] == 6
    done = run_net([*event_settings(data, tmp_path / "no"), *network, "EVENT2VEC.TOKEN_MIX", 0.5])
    assert done.returncode == 2 and "EVENT2VEC.TOKEN_MIX mixes labels" in done.stderr


def test_only_the_pre_trained_form_makes_its_own_targets(data: Path, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(event_settings(data, tmp_path))
    assert pretext_of(build_model(cfg)) is None
    cfg.EVENT2VEC.MASK_RATIO = 0.5
    assert pretext_of(build_model(cfg)) is not None
