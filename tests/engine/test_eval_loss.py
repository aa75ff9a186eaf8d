"""Validation loss against the mean of PyTorch's losses over samples."""

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
from slowfast.engine.meters import EvalLoss
from slowfast.engine.tasks import Task, build_task
from slowfast.engine.tasks.pretraining import Pretraining
from slowfast.utils.distributed import World

CPU, CLASSES = torch.device("cpu"), 5


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
def test_it_is_the_mean_cross_entropy_of_readable_samples(drawn: list[tuple[int, int, bool]], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    samples = [(label, torch.randn(views, CLASSES, generator=rng) if read else None) for label, views, read in drawn]
    expected = []
    for label, outputs in samples:
        if outputs is not None:
            expected.append(-np.mean([float(view.log_softmax(0)[label]) for view in outputs]))
    for loss in ("cross_entropy", "soft_cross_entropy"):
        found = mean_loss(task("classification", loss, smoothing=0.2), samples)
        assert found == (pytest.approx(np.mean(expected), rel=1e-5) if expected else None)


def test_multi_label_and_class_weights() -> None:
    outputs = torch.randn(2, CLASSES, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, CLASSES)
    targets[:, [1, 3]] = 1.0
    found = mean_loss(task("multi_label", "bce_logit", smoothing=0.2), [((1, 3), outputs)])
    assert found == pytest.approx(float(F.binary_cross_entropy_with_logits(outputs, targets)))
    weighted = mean_loss(task("classification", "cross_entropy", labels=[0, 0, 0, 1]), [(0, outputs), (1, outputs)])
    plain = [float(F.cross_entropy(outputs, torch.tensor([label, label]))) for label in (0, 1)]
    assert weighted == pytest.approx((4 / 6 * plain[0] + 2 * plain[1]) / 2)


def test_it_does_not_depend_on_the_order() -> None:
    """The number of processes changes the order of the samples."""
    outputs = torch.randn(50, 1, CLASSES, generator=torch.Generator().manual_seed(0)) * 10
    samples = [(index % CLASSES, row) for index, row in enumerate(outputs)]
    of = task("classification", "cross_entropy")
    assert mean_loss(of, [*samples]) == mean_loss(of, [*samples[::2], *samples[1::2]]) == mean_loss(of, samples[::-1])


def test_tasks_that_convert_labels_have_none_by_default() -> None:
    def unused(*_: Any) -> Any:
        raise AssertionError("there are no targets in validation")

    assert mean_loss(Pretraining(unused, unused), [(0, torch.zeros(1, CLASSES))]) is None
