"""Per-class tables, mean-class accuracy and calibration error against plain loops."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.config.defaults import get_cfg
from slowfast.engine.evaluate import Ensemble
from slowfast.engine.tasks.classification import ClassificationEvaluator, calibration_error
from slowfast.utils.distributed import World
from slowfast.visualization.per_class import ClassAccuracies
from slowfast.visualization.results import VideoPrediction

CLASSES = 5
NAMES = ["jump", "run, fast", "walk", "=sum", "sit"]
Pairs = list[tuple[int, int | None]]  # label and prediction, None for an unreadable video
pairs = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.none() | st.integers(0, CLASSES - 1)), max_size=40)


def videos(drawn: Pairs) -> list[VideoPrediction]:
    return [
        VideoPrediction(index, str(index), label, [] if guess is None else [(guess, 0.5)])
        for index, (label, guess) in enumerate(drawn)
    ]


@given(pairs)
def test_classes_against_plain_counts(drawn: Pairs) -> None:
    found, shares = ClassAccuracies.of(videos(drawn), CLASSES), []
    for label, row in enumerate(found.rows(NAMES)):
        guesses = [guess for one, guess in drawn if one == label]
        wrong = Counter(guess for guess in guesses if guess not in (None, label))
        most = min(wrong, key=lambda guess: (-wrong[guess], guess), default=None)
        share = 100.0 * guesses.count(label) / len(guesses) if guesses else None
        if share is not None:
            shares.append(share)
        assert row == {
            "videos": len(guesses),
            "correct": guesses.count(label),
            "accuracy": None if share is None else round(share, 2),
            "confused_with": most,
            "confused_with_name": None if most is None else NAMES[most],
            "confused_videos": None if most is None else wrong[most],
        }
    assert found.mean() == pytest.approx(sum(shares) / len(shares) if shares else 0.0, abs=0.005 + 1e-9)


confidence = st.floats(0.0, 1.0) | st.sampled_from([bin / 15 for bin in range(16)])


@given(st.lists(st.tuples(confidence, st.booleans()), min_size=1, max_size=60))
def test_calibration_error_against_the_definition(drawn: list[tuple[float, bool]]) -> None:
    expected = 0.0
    for bin in range(15):
        inside = [(s, right) for s, right in drawn if bin / 15 < s <= (bin + 1) / 15 or (bin == 0 and s == 0.0)]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            mean = sum(s for s, _ in inside) / len(inside)
            expected += len(inside) / len(drawn) * abs(accuracy - mean)
    found = calibration_error([score for score, _ in drawn], [right for _, right in drawn])
    assert found == pytest.approx(100.0 * expected, abs=1e-9)


def test_calibration_error_of_known_cases() -> None:
    assert math.isnan(calibration_error([], []))
    assert calibration_error([0.75] * 4, [True, True, True, False]) == 0.0
    assert calibration_error([1.0, 1.0], [True, False]) == pytest.approx(50.0)
    # Bins do not cancel out: one is too confident, the other not confident enough.
    assert calibration_error([0.1, 0.9], [True, False]) == pytest.approx(90.0)


def test_the_test_writes_both_files(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    evaluator = ClassificationEvaluator(World(), CLASSES, Ensemble())
    evaluator._own = [(one.index, bool(one.best), one) for one in videos([(0, 0), (0, 1), (1, None), (3, 3)])]
    results = evaluator.evaluate()
    files = evaluator.write(cfg, NAMES)
    assert (results.values["mean_class_accuracy"], results.values["calibration_error"]) == (50.0, 16.67)
    assert dict(results.rows)["mean-class accuracy"] == "50.00 %"
    listed = json.loads((tmp_path / "per_class.json").read_text())
    with (tmp_path / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(files.values()) == {tmp_path / "per_class.csv", tmp_path / "per_class.json"}
    assert [row["accuracy"] for row in rows] == ["50.0", "0.0", "", "100.0", ""]
    assert [row["accuracy"] for row in listed] == [50.0, 0.0, None, 100.0, None]
    assert listed[0]["confused_with_name"] == rows[0]["confused_with_name"] == "run, fast"
    assert rows[0].keys() == listed[0].keys() and len(rows) == len(listed) == CLASSES
