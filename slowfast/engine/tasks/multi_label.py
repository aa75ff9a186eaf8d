"""Multi-label classification: any number of classes per sample, binary cross-entropy, mean average precision.

Average precision takes memory that grows with the number of positives and not with N x K: that of a class changes only
at the scores of its positive samples, its *thresholds*. They are known once all samples are processed; a second pass
over the scores counts the samples that reach each of them.

N samples, K classes, M thresholds of all classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST
from slowfast.datasets.index.entries import CLASSES, classes_of, label_format
from slowfast.datasets.loader import NO_LABEL
from slowfast.datasets.mixup import Mixup
from slowfast.datasets.sampling import BALANCED
from slowfast.engine.evaluate import Ensemble
from slowfast.engine.losses import Loss, class_weights, get_loss
from slowfast.engine.tasks.base import CPU, TASK_REGISTRY, Task
from slowfast.engine.tasks.classification import accuracy
from slowfast.engine.tasks.scores import ClassScoreEvaluator
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World
from slowfast.visualization.per_class import write_per_class
from slowfast.visualization.results import PERCENT_DIGITS, Metric, Results, VideoPrediction

MAP, PRECISION = Metric("map", "mAP"), Metric("precision1", "precision@1")
LOSS = "bce_logit"
_PRESENT = 0.5  # minimum target of a class that counts as present


def multi_hot(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Convert labels to vectors of 0 and 1.

    Args:
        labels: Class indices (N,), or (N, L) padded with `NO_LABEL`.
        num_classes: K.

    Returns:
        float32 (N, K).
    """
    labels = labels.reshape(len(labels), -1)
    padded = labels.masked_fill(labels == NO_LABEL, num_classes)
    return torch.zeros(len(labels), num_classes + 1, device=labels.device).scatter_(1, padded, 1.0)[:, :num_classes]


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of a class in percent, None without positives, and the number of its positive samples."""

    positives: int
    average_precision: float | None


@dataclass(frozen=True)
class Thresholds:
    """Distinct scores of the positive samples of each class, ascending within a class.

    Attributes:
        scores: float32 (M,).
        positives: Number of positive samples with each of these scores, int64 (M,).
        ends: End of each class in them, int64 (K,).
    """

    scores: np.ndarray
    positives: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, classes: Sequence[Sequence[int]], scores: Sequence[Sequence[float]], num_classes: int) -> Thresholds:
        """Build from the classes of each sample and its scores for them."""
        flat = np.array([number for sample in classes for number in sample], np.int64)
        values = np.array([score for sample in scores for score in sample], np.float32)
        order = np.lexsort((values, flat))
        flat, values = flat[order], values[order]
        first = np.flatnonzero((np.diff(flat, prepend=-1) != 0) | (np.diff(values, prepend=np.float32(-1)) != 0))
        positives = np.diff(np.append(first, len(flat)))
        return cls(values[first], positives, np.cumsum(np.bincount(flat[first], minlength=num_classes)))

    def of_class(self, number: int) -> slice:
        """Return the thresholds of a class."""
        return slice(int(self.ends[number - 1]) if number else 0, int(self.ends[number]))

    def count(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Count the samples whose score reaches each threshold.

        Args:
            blocks: Scores of all samples, float32 (rows, K) each.

        Returns:
            int64 (M,).
        """
        counts = np.zeros(len(self.scores), np.int64)
        present = np.flatnonzero(np.diff(self.ends, prepend=0)).tolist()
        for block in blocks:
            columns = np.ascontiguousarray(block.T)
            for number in present:
                chosen = self.of_class(number)
                reached = np.searchsorted(self.scores[chosen], columns[number], side="right")  # thresholds per sample
                tally = np.bincount(reached, minlength=chosen.stop - chosen.start + 1)
                counts[chosen] += np.cumsum(tally[:0:-1])[::-1]
        return counts

    def precisions(self, counts: np.ndarray, lost: np.ndarray, samples: int) -> list[ClassPrecision]:
        """Return the average precision of each class: the sum over thresholds of precision times increase in recall.

        Equal scores share a threshold, as in scikit-learn's ``average_precision_score``.

        Args:
            counts: Number of samples that reach each threshold, int64 (M,).
            lost: Number of positive samples of each class without scores, which rank last together, int64 (K,).
            samples: N, with the samples without scores.
        """
        found = []
        for number, missing in enumerate(lost.tolist()):
            chosen = self.of_class(number)
            positives, reached = self.positives[chosen][::-1], counts[chosen][::-1]
            total = int(positives.sum()) + missing
            area = float(np.sum(np.cumsum(positives) / reached * positives))
            area += missing * total / samples if missing else 0.0
            found.append(ClassPrecision(total, 100.0 * area / total if total else None))
        return found


def mean_average_precision(classes: Sequence[ClassPrecision]) -> float:
    """Return the mean over the classes with positives, in percent; 0 if there is none."""
    known = [one.average_precision for one in classes if one.average_precision is not None]
    return round(sum(known) / len(known), PERCENT_DIGITS) if known else 0.0


class MultiLabelEvaluator(ClassScoreEvaluator):
    """Mean average precision over the classes with positives, and precision of the best class of each sample.

    Attributes:
        per_class: Average precision of each class; set by `evaluate`.
    """

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.per_class: list[ClassPrecision] = []

    def compute(self, predictions: Sequence[VideoPrediction]) -> Results:
        """Return the metrics in percent; ``map_read`` excludes unreadable samples, which else rank last."""
        read = [one for one in predictions if one.best]
        labels = [classes_of(one.label) for one in read]
        thresholds = Thresholds.of(labels, [one.label_scores for one in read], self.num_classes)
        counts = np.sum(self.world.gather([thresholds.count(self.scores.blocks())]), axis=0)
        lost = [number for one in predictions if not one.best for number in classes_of(one.label)]
        lost_of_class = np.bincount(np.array(lost, np.int64), minlength=self.num_classes)
        self.per_class = thresholds.precisions(counts, lost_of_class, len(predictions))
        of_read = thresholds.precisions(counts, np.zeros_like(lost_of_class), len(read))
        missing = sum(one.positives == 0 for one in self.per_class)
        values = {
            "map": mean_average_precision(self.per_class),
            "map_read": mean_average_precision(of_read),
            "precision1": accuracy(predictions, 1),
            "classes": self.num_classes - missing,
            "classes_without_positives": missing,
        }
        return Results(values, self._rows(values, failed=len(read) < len(predictions)))

    def _rows(self, values: dict[str, Any], failed: bool) -> list[tuple[str, str]]:
        rows = [
            (MAP.title, MAP.text(values["map"]) + (" (failed videos rank last)" if failed else "")),
            (PRECISION.title, PRECISION.text(values["precision1"])),
        ]
        if failed:
            rows.append(("mAP (readable videos)", MAP.text(values["map_read"])))
        if values["classes_without_positives"]:
            excluded = f"{values['classes']} ({values['classes_without_positives']} without positives are excluded)"
            rows.append(("classes", excluded))
        return rows

    def write(self, cfg: ConfigNode, class_names: Sequence[str]) -> dict[str, Path]:
        """Write per_class.csv and per_class.json: positives and average precision (%), empty without positives."""
        rows = [
            {"positives": one.positives, "ap": None if (ap := one.average_precision) is None else _rounded(ap)}
            for one in self.per_class
        ]
        files = write_per_class(rows, class_names, Path(cfg.OUTPUT_DIR), "average precision per class")
        return files | super().write(cfg, class_names)


def _rounded(percent: float) -> float:
    return round(percent, PERCENT_DIGITS)


@TASK_REGISTRY.register(name="multi_label")
class MultiLabel(Task):
    """Classification in which each class is present or not, independently of the others.

    Args:
        num_classes: K.
        loss: Loss of logits (N, K) and targets (N, K).
        smoothing: Label smoothing: targets are moved toward 0.5 by this fraction.
        mixup: MixUp and CutMix of smoothed targets; None for none.
    """

    step_metrics = (PRECISION,)
    metrics = (MAP, PRECISION)
    label_format = CLASSES

    def __init__(self, num_classes: int, loss: Loss, smoothing: float = 0.0, mixup: Mixup | None = None) -> None:
        self.num_classes, self.smoothing, self.mixup = num_classes, smoothing, mixup
        self._loss = loss

    @classmethod
    def from_config(
        cls,
        cfg: ConfigNode,
        *,
        labels: Sequence[Any] = (),
        model: nn.Module | None = None,
        device: torch.device = CPU,
    ) -> MultiLabel:
        """Build from MODEL.CLASS_WEIGHTS and MIXUP; balanced weights count all videos that have a class."""
        flat = [number for label in labels for number in classes_of(label)]
        weights = class_weights(cfg.MODEL.CLASS_WEIGHTS, flat, cfg.MODEL.NUM_CLASSES) if flat else None
        loss = get_loss(LOSS, None if weights is None else weights.to(device))
        mixup = Mixup.from_config(cfg, smoothing=0.0) if cfg.MIXUP.ENABLE else None
        return cls(cfg.MODEL.NUM_CLASSES, loss, cfg.MIXUP.LABEL_SMOOTH_VALUE, mixup)

    @classmethod
    def check_config(cls, cfg: ConfigNode) -> None:
        """Check the loss, the order of training and the separator of index files."""
        task = f"MODEL.TASK {cfg.MODEL.TASK}"
        if cfg.MODEL.LOSS_FUNC != LOSS:
            raise ConfigError(f"{task} needs MODEL.LOSS_FUNC {LOSS}, but it is {cfg.MODEL.LOSS_FUNC}")
        if cfg.DATA.SAMPLING == BALANCED:
            raise ConfigError(f"DATA.SAMPLING {BALANCED} needs one class per video, unlike {task}. Set it to uniform")
        label_format(cfg)

    def targets(self, inputs: Any, labels: torch.Tensor, rng: np.random.Generator) -> tuple[Any, torch.Tensor]:
        """Return smoothed and mixed multi-hot labels (N, K)."""
        soft = multi_hot(labels, self.num_classes) * (1.0 - self.smoothing) + 0.5 * self.smoothing
        return (inputs, soft) if self.mixup is None else self.mixup(inputs, soft, rng)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the binary cross-entropy."""
        return self._loss(outputs, targets)

    def eval_loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the binary cross-entropy, without label smoothing."""
        return self._loss(outputs, multi_hot(labels, self.num_classes))

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the percentage of clips whose best class is present."""
        best = targets.gather(1, outputs.argmax(1, keepdim=True))
        return 100.0 * (best > _PRESENT).float().mean()[None]

    def evaluator(self, cfg: ConfigNode, world: World, split: str = TEST) -> MultiLabelEvaluator:
        """Return the evaluator of a split."""
        keep_logits = split == TEST and bool(cfg.TEST.SAVE_RESULTS_PATH)
        return MultiLabelEvaluator(
            world,
            self.num_classes,
            self.ensemble(cfg),
            keep_logits=keep_logits,
            keep_scores=True,
            folder=Path(cfg.OUTPUT_DIR),
        )

    @classmethod
    def ensemble(cls, cfg: ConfigNode) -> Ensemble:
        """Return the ensemble of DATA.ENSEMBLE_METHOD and TEST.ENSEMBLE_ON, with sigmoid scores."""
        return Ensemble(cfg.DATA.ENSEMBLE_METHOD, cfg.TEST.ENSEMBLE_ON, torch.Tensor.sigmoid)

    def captions(self, targets: torch.Tensor, class_names: Sequence[str], count: int) -> list[str]:
        """Return the names of the classes of each sample; those of mixed samples with their targets."""
        rows = targets[:count].detach().cpu()
        if not rows.is_floating_point():
            rows = multi_hot(rows, len(class_names))
        low, high = 0.5 * self.smoothing, 1.0 - 0.5 * self.smoothing
        texts = []
        for row in ((rows - low) / (high - low)).tolist():
            present = [(share, name) for share, name in zip(row, class_names, strict=True) if share > 0.005]
            texts.append(", ".join(name if share > 0.995 else f"{share:.2f} {name}" for share, name in present))
        return texts
