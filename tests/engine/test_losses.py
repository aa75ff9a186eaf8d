"""Class weights of the loss, and the validation loss against the mean of losses over samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from slowfast.config.defaults import get_cfg
from slowfast.datasets.types import Record
from slowfast.engine.losses import class_weights, get_loss, read_class_weights
from slowfast.engine.meters import EvalLoss
from slowfast.engine.tasks import Task, build_task
from slowfast.engine.tasks.pretraining import Pretraining
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World

CPU, CLASSES = torch.device("cpu"), 5


def test_balanced_weights_make_every_class_weigh_the_same() -> None:
    labels = [0] * 6 + [1] * 3 + [3]
    weights = class_weights("balanced", labels, 5)
    assert weights is not None
    totals = [float(weights[label]) * labels.count(label) for label in (0, 1, 3)]
    assert totals == pytest.approx([totals[0]] * 3)
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert weights[2] == weights[4] == 0
    assert class_weights("", labels, 5) is None


def test_weights_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.txt"
    path.write_text("1\n0.5\n\n2e0\n")
    assert class_weights(str(path), [], 3).tolist() == [1, 0.5, 2]  # type: ignore[union-attr]
    for text, problem in (
        ("1\n2\n", "has 2 weights, but MODEL.NUM_CLASSES is 3"),
        ("1\nx\n1\n", "line 2: 'x' is not a number"),
        ("1\n-1\n1\n", "line 2: '-1' is not a number from 0 to"),
        ("1\n1\ninf\n", "line 3"),
        ("0\n0\n0\n", "has only zeros"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=problem):
            read_class_weights(path, 3)
    with pytest.raises(ConfigError, match="MODEL.CLASS_WEIGHTS: .* does not exist"):
        read_class_weights(tmp_path / "missing.txt", 3)


@pytest.mark.parametrize("name", ["cross_entropy", "soft_cross_entropy"])
def test_weighted_losses_are_the_plain_sum(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0])
    shares = torch.eye(4)[labels] * 0.9 + 0.025
    targets = labels if name == "cross_entropy" else shares
    terms = torch.eye(4)[labels] if name == "cross_entropy" else shares
    expected = -(weights * terms * logits.log_softmax(1)).sum() / 6
    torch.testing.assert_close(get_loss(name, weights)(logits, targets), expected)
    # The halves of a batch add up to it, whatever their labels: so do the processes' parts.
    halves = [get_loss(name, weights)(logits[part], targets[part]) for part in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, expected)
    unweighted = -(terms * logits.log_softmax(1)).sum() / 6
    torch.testing.assert_close(get_loss(name)(logits, targets), unweighted)


def record(label: Any, index: int = 0) -> Record:
    return Record(index, Path("a.mp4"), "a.mp4", label)


def task(kind: str, loss: str, smoothing: float = 0.0, labels: Any = ()) -> Task:
    cfg = get_cfg()
    cfg.MODEL.TASK, cfg.MODEL.LOSS_FUNC, cfg.MODEL.NUM_CLASSES = kind, loss, CLASSES
    cfg.MIXUP.LABEL_SMOOTH_VALUE = smoothing
    cfg.MODEL.CLASS_WEIGHTS = "balanced" if labels else ""
    return build_task(cfg, labels=labels)


def mean_loss(of: Task, samples: list[tuple[Any, torch.Tensor | None]]) -> float | None:
    loss = EvalLoss(of.eval_loss, CPU)
    for label, outputs in samples:
        loss.add(record(label), outputs)
    return loss.mean(World())


@given(
    st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(1, 3), st.booleans()), max_size=8), st.integers(0, 9)
)
def test_validation_loss_is_the_mean_of_readable_samples(drawn: list[tuple[int, int, bool]], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    samples = [(label, torch.randn(views, CLASSES, generator=rng) if read else None) for label, views, read in drawn]
    expected = []
    for label, outputs in samples:
        if outputs is not None:
            expected.append(-np.mean([float(view.log_softmax(0)[label]) for view in outputs]))
    for loss in ("cross_entropy", "soft_cross_entropy"):
        found = mean_loss(task("classification", loss, smoothing=0.2), samples)
        assert found == (pytest.approx(np.mean(expected), rel=1e-5) if expected else None)


def test_validation_loss_of_multi_label_and_class_weights() -> None:
    outputs = torch.randn(2, CLASSES, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, CLASSES)
    targets[:, [1, 3]] = 1.0
    found = mean_loss(task("multi_label", "bce_logit", smoothing=0.2), [((1, 3), outputs)])
    assert found == pytest.approx(float(F.binary_cross_entropy_with_logits(outputs, targets)))
    weighted = mean_loss(task("classification", "cross_entropy", labels=[0, 0, 0, 1]), [(0, outputs), (1, outputs)])
    plain = [float(F.cross_entropy(outputs, torch.tensor([label, label]))) for label in (0, 1)]
    assert weighted == pytest.approx((4 / 6 * plain[0] + 2 * plain[1]) / 2)


def test_validation_loss_does_not_depend_on_the_order() -> None:
    """The number of processes changes the order of the samples."""
    outputs = torch.randn(50, 1, CLASSES, generator=torch.Generator().manual_seed(0)) * 10
    samples = [(index % CLASSES, row) for index, row in enumerate(outputs)]
    of = task("classification", "cross_entropy")
    assert mean_loss(of, [*samples]) == mean_loss(of, [*samples[::2], *samples[1::2]]) == mean_loss(of, samples[::-1])


def test_tasks_that_convert_labels_have_none_by_default() -> None:
    def unused(*_: Any) -> Any:
        raise AssertionError("there are no targets in validation")

    assert mean_loss(Pretraining(unused, unused), [(0, torch.zeros(1, CLASSES))]) is None
