"""Class weights: computation, and effect on the losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slowfast.engine.losses import class_weights, get_loss, read_class_weights
from slowfast.errors import ConfigError


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
