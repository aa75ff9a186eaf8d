"""Multi-label classification: labels in index files, targets, metrics against scikit-learn, complete runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_net, tiny_settings
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import train_dataset
from slowfast.datasets.index.entries import CLASSES, LABEL_FORMATS, ONE_CLASS, label_format
from slowfast.datasets.index.labeled_paths import format_line, parse_line
from slowfast.datasets.loader import NO_LABEL, stack_labels
from slowfast.datasets.types import Record
from slowfast.engine import checkpoints
from slowfast.engine.losses import get_loss
from slowfast.engine.tasks import TASK_REGISTRY, build_task
from slowfast.engine.tasks.multi_label import (
    MultiLabel,
    MultiLabelEvaluator,
    Thresholds,
    mean_average_precision,
    multi_hot,
)
from slowfast.engine.tasks.scores import write_scores
from slowfast.errors import ConfigError, IndexFileError
from slowfast.inference.predictor import Predictor
from slowfast.utils.distributed import World
from slowfast.visualization.results import Results, VideoPrediction
from tests.report_content import report_content

pytestmark = pytest.mark.slow

EMPTY = Path(__file__).parents[1] / "empty.yaml"
MULTI = ["MODEL.TASK", "multi_label", "MODEL.LOSS_FUNC", "bce_logit"]
# Classes of the test videos: every one but the last has positives, and not every video.
LABELS = ["0,3", "1", "2,4,6", "3", "4,0", "5", "6,1", "5,2,3"]


@pytest.fixture(scope="module")
def data(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of the Kinetics folder with several labels each; no video has class 7."""
    folder = tmp_path_factory.mktemp("multi_label")
    for split in ("train", "val", "test"):
        paths = [line.split()[0] for line in (kinetics_folder / f"{split}.csv").read_text().splitlines()]
        lines = [f"{kinetics_folder / path} {LABELS[i % len(LABELS)]}\n" for i, path in enumerate(paths)]
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


def settings(data: Path, output: Path, *more: object) -> list[object]:
    return [*tiny_settings(data, output), "DATA.PATH_PREFIX", "", *MULTI, *more]


def config(*more: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list([*MULTI, *more])
    return cfg


def results(output: Path) -> dict[str, float]:
    return json.loads((output / "test_results.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ labels
def test_labels_of_a_line() -> None:
    assert parse_line("a b.mp4 17,3", " ", 18, CLASSES) == ("a b.mp4", (3, 17))
    assert parse_line("a.mp4\t3", "\t", 18, CLASSES) == ("a.mp4", (3,))
    assert parse_line('"a, b.mp4";3,17', ";", 18, CLASSES) == ("a, b.mp4", (3, 17))
    assert format_line("a.mp4", " ", (3, 17)) == "a.mp4 3,17\n" and format_line("a.mp4", " ", 3) == "a.mp4 3\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a.mp4 3,18", "label 18 is out of range"),
        ("a.mp4 3,,4", "is not a non-negative integer"),
        ("a.mp4 3,3", "given twice"),
        ("a.mp4 3, 4", "a space between labels"),
        ("a.mp4 -1", "is not a non-negative integer"),
    ],
)
def test_broken_labels(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_line(line, " ", 18, CLASSES)


def test_the_index_says_what_it_expects(data: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 3;17\n")
    cfg = load_config(EMPTY, settings(tmp_path, tmp_path / "out"))
    with pytest.raises(IndexFileError, match="labels from 0 to 7 joined by commas, such as 3,17"):
        train_dataset(cfg)
    cfg = load_config(EMPTY, settings(data, tmp_path / "out"))
    assert [record.label for record in train_dataset(cfg).records[:3]] == [(0, 3), (1,), (2, 4, 6)]


def test_a_comma_cannot_separate_both_paths_and_labels() -> None:
    cfg = config("DATA.PATH_LABEL_SEPARATOR", ",")
    with pytest.raises(ConfigError, match="a comma separates the labels"):
        label_format(cfg)
    with pytest.raises(ConfigError, match="a comma separates the labels"):
        MultiLabel.check_config(cfg)
    cfg.MODEL.TASK = "classification"
    assert label_format(cfg) is ONE_CLASS and label_format(config()) is CLASSES
    assert all(LABEL_FORMATS[name] is task.label_format for name, task in TASK_REGISTRY)


# ------------------------------------------------------------------ targets and loss
def test_targets_are_smoothed_and_mixed() -> None:
    labels = stack_labels([(0, 2), (1,), (3,)])
    assert labels.tolist() == [[0, 2], [1, NO_LABEL], [3, NO_LABEL]]
    hot = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert torch.equal(multi_hot(labels, 4), hot) and torch.equal(multi_hot(torch.tensor([2]), 4)[0], torch.eye(4)[2])
    task = build_task(config("MODEL.NUM_CLASSES", 4, "MIXUP.LABEL_SMOOTH_VALUE", 0.1))
    inputs, targets = task.targets(torch.zeros(3, 3, 2, 4, 4), labels, np.random.default_rng(0))
    torch.testing.assert_close(targets, 0.9 * hot + 0.05)
    assert task.captions(targets, "abcd", 8) == ["a, c", "b", "d"] == task.captions(labels, "abcd", 8)
    mixing = ["MIXUP.ENABLE", True, "MIXUP.ALPHA", 1.0, "MIXUP.CUTMIX_ALPHA", 0.0, "MIXUP.LABEL_SMOOTH_VALUE", 0.1]
    task = build_task(config("MODEL.NUM_CLASSES", 4, *mixing))
    clips = torch.zeros(3, 3, 2, 4, 4)
    clips[0] = 1.0
    mixed, soft = task.targets(clips, labels, np.random.default_rng(0))
    share = float(mixed[0, 0, 0, 0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(soft, 0.9 * (share * hot + (1 - share) * hot.flip(0)) + 0.05)
    first = task.captions(soft, "abcd", 1)[0].split(", ")
    assert first == [f"{share:.2f} a", f"{share:.2f} c", f"{1 - share:.2f} d"]


def test_the_loss_is_the_mean_over_clips_and_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 4, generator=generator), torch.rand(6, 4, generator=generator)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0])
    p = logits.double().sigmoid()
    terms = -(targets * p.log() + (1 - targets) * (1 - p).log()).float()
    loss = get_loss("bce_logit", weights)
    torch.testing.assert_close(loss(logits, targets), (weights * terms).mean())
    halves = [loss(logits[part], targets[part]) for part in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, loss(logits, targets))
    assert loss(logits.bfloat16(), targets).dtype == torch.float32
    cfg = config("MODEL.NUM_CLASSES", 4, "MODEL.CLASS_WEIGHTS", "balanced")
    # Class 0 is in two of five labels, 1 in one, 2 in two; a label has weight 1 on average.
    balanced = torch.tensor([5 / 6, 5 / 3, 5 / 6, 0.0])
    task = build_task(cfg, labels=[(0, 1), (0, 2), (2,)])
    torch.testing.assert_close(task.loss(logits, targets), (balanced * terms).mean())


def test_precision_of_the_best_class() -> None:
    task = build_task(config("MODEL.NUM_CLASSES", 3))
    logits = torch.tensor([[3.0, 1, 2], [0, 1, 2], [0, 1, 2]])
    targets = torch.tensor([[0.95, 0.05, 0.95], [0.95, 0.95, 0.05], [0.3, 0.3, 0.7]])
    assert task.measure(logits, targets).tolist() == [pytest.approx(200 / 3)]


# ------------------------------------------------------------------ metrics
def plain_average_precision(scores: list[float], positives: list[bool]) -> float:
    """Precision at each threshold times the positives it adds, by counting."""
    total, found, area = sum(positives), 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [positive for score, positive in zip(scores, positives, strict=True) if score >= threshold]
        area += (sum(chosen) - found) / total * sum(chosen) / len(chosen)
        found = sum(chosen)
    return area


def evaluated(scores: np.ndarray, hot: np.ndarray, unreadable: set[int]) -> tuple[MultiLabelEvaluator, Results]:
    """Evaluate samples of given scores and classes."""
    evaluator = MultiLabelEvaluator(World(), scores.shape[1], lambda views: views[0].double(), keep_scores=True)  # type: ignore[arg-type]
    for place, (row, positives) in enumerate(zip(scores, hot, strict=True)):
        record = Record(place, Path(str(place)), str(place), tuple(np.flatnonzero(positives).tolist()))
        evaluator.process(record, None if place in unreadable else torch.from_numpy(row)[None])
    return evaluator, evaluator.evaluate()


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.booleans())
def test_average_precision_against_scikit_learn(drawn: list[tuple[int, bool]], ties: bool) -> None:
    scores = np.array([score / 7 if ties else (score + place / 100) / 7 for place, (score, _) in enumerate(drawn)])
    scores = scores.astype(np.float32)
    positives = np.array([positive for _, positive in drawn])
    positives[0] = True
    thresholds = Thresholds.of([(0,)] * positives.sum(), scores[positives, None].tolist(), 1)
    counts = thresholds.count(np.array_split(scores[:, None], 3))
    [found] = thresholds.precisions(counts, np.zeros(1, np.int64), len(scores))
    assert found.positives == positives.sum() and found.average_precision is not None
    assert found.average_precision / 100 == pytest.approx(average_precision_score(positives, scores), abs=1e-12)
    plain = plain_average_precision(scores.tolist(), positives.tolist())
    assert found.average_precision / 100 == pytest.approx(plain, abs=1e-12)


def test_mean_average_precision_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, hot = rng.random((30, 6)).astype(np.float32), rng.random((30, 6)) < 0.3
    hot[:, 4] = False  # a class without positives
    hot[:, 5] = True
    hot[hot.sum(1) == 0, 0] = True
    evaluator, _ = evaluated(scores, hot, set())
    classes = evaluator.per_class
    expected = [100 * average_precision_score(hot[:, k], scores[:, k]) for k in (0, 1, 2, 3, 5)]
    assert [one.average_precision for one in classes if one.positives] == pytest.approx(expected)
    assert (classes[4].positives, classes[4].average_precision) == (0, None)
    assert [one.positives for one in classes] == hot.sum(0).tolist()
    assert mean_average_precision(classes) == pytest.approx(np.mean(expected), abs=0.005)
    hot[:, 4] = True
    macro = average_precision_score(hot, scores, average="macro")
    assert evaluated(scores, hot, set())[1].values["map"] == pytest.approx(100 * macro, abs=0.005)


def test_unreadable_videos_rank_last() -> None:
    rng = np.random.default_rng(1)
    scores, hot = rng.random((12, 3)).astype(np.float32), rng.random((12, 3)) < 0.5
    hot[hot.sum(1) == 0, 0] = True
    _, found = evaluated(scores, hot, {2, 7})
    scores[[2, 7]] = -1.0
    assert found.values["map"] == pytest.approx(100 * average_precision_score(hot, scores, average="macro"), abs=0.005)
    read = np.delete(np.arange(12), [2, 7])
    expected = 100 * average_precision_score(hot[read], scores[read], average="macro")
    assert found.values["map_read"] == pytest.approx(expected, abs=0.005)
    rows = dict(found.rows)
    assert rows["mAP"].endswith("% (failed videos rank last)") and "mAP (readable videos)" in rows
    assert evaluated(scores[:0], hot[:0], set())[1].values["map"] == 0.0


def test_scores_are_sigmoids_of_the_joined_views() -> None:
    views = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for on, expected in (("logits", views.mean(0).sigmoid()), ("probabilities", views.sigmoid().mean(0))):
        cfg = config("TEST.ENSEMBLE_ON", on)
        torch.testing.assert_close(MultiLabel.ensemble(cfg)(views).float(), expected)
    evaluator = build_task(config("MODEL.NUM_CLASSES", 5)).evaluator(config("MODEL.NUM_CLASSES", 5), World())
    evaluator.process(Record(1, Path("b"), "b.mp4", (0, 2)), None)
    evaluator.process(Record(0, Path("a"), "a.mp4", (1,)), views)
    evaluator.evaluate()
    assert evaluator.failed == 1 and [one.name for one in evaluator.predictions] == ["a.mp4", "b.mp4"]
    row = evaluator.row(evaluator.predictions[0], list("vwxyz"))
    best = int(views.mean(0).argmax())
    assert (row.label, row.prediction, row.class_name) == ("1", best, "vwxyz"[best])
    assert evaluator.row(evaluator.predictions[1], list("vwxyz")).label == "0,2"


def test_saved_labels_are_multi_hot(tmp_path: Path) -> None:
    predictions = [VideoPrediction(0, "a", (0, 2)), VideoPrediction(1, "b", (1,))]
    write_scores(predictions, [np.ones((2, 3), np.float32)], 3, tmp_path / "scores.npz", "scores.npz")
    with np.load(tmp_path / "scores.npz") as saved:
        assert saved["labels"].tolist() == [[1, 0, 1], [0, 1, 0]] and saved["labels"].dtype == np.int64


# ------------------------------------------------------------------ settings
@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["MODEL.LOSS_FUNC", "cross_entropy"], "MODEL.TASK multi_label needs MODEL.LOSS_FUNC bce_logit"),
        (["MODEL.TASK", "classification"], "MODEL.LOSS_FUNC bce_logit does not fit MODEL.TASK classification"),
        (["DATA.SAMPLING", "balanced"], "needs one class per video"),
        (["DATA.PATH_LABEL_SEPARATOR", ","], "a comma separates the labels"),
        (["MODEL.TASK", "multilabel"], "Did you mean 'multi_label'"),
        (["MODEL.TASK", "pretraining", "MODEL.LOSS_FUNC", "cross_entropy"], "is not set up for pre-training"),
        (["DISTILL.ENABLE", True, "DISTILL.TEACHER_CFG", EMPTY], "which MODEL.TASK multi_label does not have"),
    ],
)
def test_impossible_settings(data: Path, tmp_path: Path, more: list[object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(EMPTY, settings(data, tmp_path, *more))


# ------------------------------------------------------------------ runs
def test_one_and_two_processes_give_the_same(data: Path, tmp_path: Path) -> None:
    more = ["BN.NORM_TYPE", "sync_batchnorm", "SOLVER.MAX_EPOCH", 2, "MODEL.EMA", True, "MODEL.EMA_DECAY", 0.5]
    more += ["SOLVER.OPTIMIZING_METHOD", "sgd", "SOLVER.BASE_LR", 0.05, "MIXUP.ENABLE", True]
    for processes in (1, 2):
        done = run_net(settings(data, tmp_path / str(processes), *more), processes)
        assert done.returncode == 0, done.stderr
        assert "validation mAP" in done.stdout and "precision@1" in done.stdout
    one, two = (tmp_path / name for name in ("1", "2"))
    for name in ("predictions.csv", "per_class.csv"):
        assert (one / name).read_text() == (two / name).read_text()
    same = ("map", "map_read", "precision1", "videos", "classes", "classes_without_positives")
    assert [results(one)[key] for key in same] == [results(two)[key] for key in same]
    assert results(one)["classes_without_positives"] == 1 and "7 (1 without positives" in done.stdout
    rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train", "train", "val"] * 2
    assert rows[0].keys() >= {"loss", "precision1", "lr"} and rows[2].keys() >= {"map", "precision1", "videos"}
    assert "top1" not in rows[0] and "top1" not in results(one) and not (one / "confusion.png").exists()
    assert (one / "curves.png").is_file() and (one / "contact_sheet.png").is_file()
    _files_hold_the_metrics(one)
    page = report_content(one / "report.html")
    assert page["confusion"] is None and "average precision (%)" in str(page["per_class"]["columns"])
    assert "mAP" in str(page["charts"]) and "top-1" not in str({**page, "config": None})
    assert all(one["frames"] and one["prediction"] not in one["label"] for one in page["mistakes"])
    best = max(row["map"] for row in rows if row["split"] == "val")
    state = checkpoints.read_checkpoint(checkpoints.find_last(one))
    assert state["best_metric"] == best and (one / "checkpoints" / "checkpoint_best.pyth").is_file()


def _files_hold_the_metrics(output: Path) -> None:
    predictions, classes = table(output / "predictions.csv"), table(output / "per_class.csv")
    assert [row["label"] for row in predictions[:3]] == ["0,3", "1", "2,4,6"]
    hits = sum(row["prediction"] in row["label"].split(",") for row in predictions)
    assert results(output)["precision1"] == pytest.approx(100 * hits / len(predictions), abs=0.005)
    assert [(row["class"], row["positives"]) for row in classes][5:] == [("5", "2"), ("6", "2"), ("7", "0")]
    assert classes[7]["ap"] == ""
    known = [float(row["ap"]) for row in classes[:7]]
    assert results(output)["map"] == pytest.approx(sum(known) / 7, abs=0.02)


def test_resume_and_predict(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    constant = ["SOLVER.LR_POLICY", "steps_with_relative_lrs", "SOLVER.STEPS", "[0]", "SOLVER.LRS", "[1]"]
    for output, epochs in ((whole, 2), (parts, 1), (parts, 2)):
        more = ["SOLVER.MAX_EPOCH", epochs, "TEST.ENABLE", epochs == 2, "MODEL.EMA", True, *constant]
        run(load_config(EMPTY, settings(data, output, "DATA_LOADER.NUM_WORKERS", 0, *more)))
    one, two = (checkpoints.read_checkpoint(checkpoints.find_last(output)) for output in (whole, parts))
    assert all(torch.equal(one["model_state"][key], two["model_state"][key]) for key in one["model_state"])
    assert (one["best_metric"], one["best_epoch"]) == (two["best_metric"], two["best_epoch"])
    assert results(whole)["map"] == results(parts)["map"]
    cfg = load_config(EMPTY, settings(data, parts))
    record = train_dataset(cfg).records[0]
    prediction = Predictor.from_config(cfg)(record.path)
    assert prediction.scores is not None and prediction.scores.shape == (8,)
    assert ((prediction.scores > 0) & (prediction.scores < 1)).all()
    assert float(prediction.scores.sum()) != pytest.approx(1.0)
