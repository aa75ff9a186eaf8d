"""Classification: one class per sample, cross-entropy, top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.mixup import Mixup, TokenMix, smooth_one_hot
from slowfast.engine.evaluate import Ensemble
from slowfast.engine.losses import SOFT_LOSSES, Loss, class_weights, get_loss
from slowfast.engine.tasks.base import CPU, TASK_REGISTRY, Task
from slowfast.engine.tasks.scores import ClassScoreEvaluator
from slowfast.errors import ConfigError
from slowfast.models.build import find_network
from slowfast.models.protocol import EVENTS
from slowfast.utils.distributed import World
from slowfast.visualization.per_class import ClassAccuracies, confusion_image, write_per_class
from slowfast.visualization.results import BEST, PERCENT_DIGITS, Metric, Results, VideoPrediction
from slowfast.visualization.sheets import draw_confusion_matrix, draw_mistakes

TOP1, TOP5 = Metric("top1", "top-1"), Metric("top5", "top-5")
MEAN_CLASS = Metric("mean_class_accuracy", "mean-class accuracy")
CALIBRATION = Metric("calibration_error", "calibration error", higher_is_better=False)
_LOSSES = ("cross_entropy", "soft_cross_entropy")
BINS = 15  # of the calibration error, as in the tables of its paper


class ClassificationEvaluator(ClassScoreEvaluator):
    """Top-1, top-5 and mean-class accuracy of whole samples and top-1 accuracy of single views.

    Unreadable samples count as wrong; the calibration error only covers readable ones.

    Args:
        views: Temporal views per sample.
        crops: Spatial crops per view.
        single_samples: Also report the accuracy of single views (top1_single), as the published results of event
            recordings do.
    """

    compute_everywhere = False

    def __init__(self, *args: Any, views: int = 1, crops: int = 1, single_samples: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.views, self.crops, self.single_samples = views, crops, single_samples

    def compute(self, predictions: Sequence[VideoPrediction]) -> Results:
        """Return the accuracies in percent; keys ending in ``_read`` only cover readable samples."""
        read = [video for video in predictions if video.best]
        k = min(BEST, self.num_classes)
        values: dict[str, Any] = {
            "top1": accuracy(predictions, 1),
            "top5": accuracy(predictions, k),
            "top1_read": accuracy(read, 1),
            "top5_read": accuracy(read, k),
            "k": k,
            MEAN_CLASS.key: ClassAccuracies.of(predictions, self.num_classes).mean(),
            CALIBRATION.key: round(calibration_error(*confidences(read)), PERCENT_DIGITS),
            **view_accuracy(predictions, self.views * self.crops),
        }
        if self.single_samples:
            values |= {"top1_single": values["top1_view"], "top1_single_std": values["top1_view_std"]}
        return Results(values, self._rows(values, failed=len(read) < len(predictions)))

    def _rows(self, values: dict[str, Any], failed: bool) -> list[tuple[str, str]]:
        one, five = "top-1", f"top-{values['k']}"
        rows = {
            one: f"{values['top1']:.2f} %" + (" (failed videos count as wrong)" if failed else ""),
            five: f"{values['top5']:.2f} %",  # equals top-1 if there is a single class
            MEAN_CLASS.title: MEAN_CLASS.text(values[MEAN_CLASS.key]),
            CALIBRATION.title: f"{CALIBRATION.text(values[CALIBRATION.key])} (expected, {BINS} bins)",
        }
        view = "top-1 (single view)"
        if self.single_samples and self.views > 1:
            rows = {f"top-1 (average of {self.views} samples)": rows.pop(one), **rows}
            view = "top-1 (single samples, as published)"
        if self.views * self.crops > 1:
            rows[view] = f"{values['top1_view']:.2f} +- {values['top1_view_std']:.2f} %"
        if failed:
            rows["top-1 (readable videos)"] = f"{values['top1_read']:.2f} %"
            rows[f"{five} (readable videos)"] = f"{values['top5_read']:.2f} %"
        return list(rows.items())

    def write(self, cfg: ConfigNode, class_names: Sequence[str]) -> dict[str, Path]:
        """Write per_class.csv and per_class.json: accuracy and most frequent confusion of each class."""
        rows = ClassAccuracies.of(self.predictions, self.num_classes).rows(class_names)
        files = write_per_class(rows, class_names, Path(cfg.OUTPUT_DIR), "accuracy per class")
        return files | super().write(cfg, class_names)

    def draw(self, cfg: ConfigNode, dataset: EvalDataset, class_names: Sequence[str]) -> dict[str, Path]:
        """Draw the confusion matrix, a contact sheet of test samples, and the most confident mistakes."""
        drawn = draw_confusion_matrix(Path(cfg.OUTPUT_DIR), self.predictions, class_names)
        if not drawn:  # do not decode samples if they cannot be drawn
            return draw_mistakes(Path(cfg.OUTPUT_DIR), dataset, self.predictions, class_names)
        return drawn | super().draw(cfg, dataset, class_names)

    def confusion_image(self, class_names: Sequence[str]) -> np.ndarray | None:
        """Draw the confusion matrix of the readable samples, uint8 (H, W, 3) RGB."""
        labels = [one.label for one in self.predictions]
        return confusion_image(labels, [one.prediction for one in self.predictions], class_names)


def accuracy(predictions: Sequence[VideoPrediction], k: int) -> float:
    """Return the top-k accuracy in percent; unreadable videos count as wrong. 0 if there are no videos."""
    hits = sum(video.hit(k) for video in predictions)
    return round(100.0 * hits / len(predictions), PERCENT_DIGITS) if predictions else 0.0


def confidences(read: Sequence[VideoPrediction]) -> tuple[list[float], list[bool]]:
    """Return the score of the best class of each readable video, and whether that class is correct."""
    return [video.best[0][1] for video in read], [video.hit(1) for video in read]


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """Return the expected calibration error in percent; NaN without samples.

    Samples are sorted into bins of equal width by their confidence. The result is the mean over the samples of
    |accuracy - mean confidence| of their bin (Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3).

    Args:
        confidences: Score of the predicted class of each sample, in [0, 1].
        correct: Whether each prediction is correct.
        bins: Number of bins; bin b holds the confidences in (b / bins, (b + 1) / bins], the first one also 0.
    """
    if not len(confidences):
        return float("nan")
    scores = np.asarray(confidences, np.float64)
    upper_ends = np.arange(1, bins + 1) / bins
    bin_of = np.searchsorted(upper_ends, scores, side="left").clip(max=bins - 1)
    gaps = np.bincount(bin_of, np.asarray(correct, np.float64) - scores, minlength=bins)
    return float(100.0 * np.abs(gaps).sum() / len(scores))


def view_accuracy(predictions: Sequence[VideoPrediction], views: int) -> dict[str, float]:
    """Return mean and standard deviation, over views, of the top-1 accuracy of a single view per video, in percent."""
    hits = [sum(v.label == v.views[view] for v in predictions if len(v.views) == views) for view in range(views)]
    shares = [100.0 * count / max(len(predictions), 1) for count in hits]
    spread = stdev(shares) if views > 1 else 0.0
    return {"top1_view": round(mean(shares), PERCENT_DIGITS), "top1_view_std": round(spread, PERCENT_DIGITS)}


@TASK_REGISTRY.register(name="classification")
class Classification(Task):
    """Classification into exclusive classes.

    Args:
        num_classes: Number of classes.
        loss: Loss of logits (N, K) and class indices (N,), or soft labels (N, K) with `soft`.
        soft: Whether the loss expects soft labels.
        smoothing: Label smoothing of soft labels.
        mixup: MixUp and CutMix, which need soft labels; None for none.
        token_mix: TokenMix of event recordings, which needs soft labels; None for none.
    """

    step_metrics = (TOP1,)
    metrics = (TOP1, TOP5, MEAN_CLASS, CALIBRATION)
    distillable = True

    def __init__(
        self,
        num_classes: int,
        loss: Loss,
        soft: bool = False,
        smoothing: float = 0.0,
        mixup: Mixup | None = None,
        token_mix: TokenMix | None = None,
    ) -> None:
        self.num_classes, self.soft, self.smoothing = num_classes, soft, smoothing
        self.mixup, self.token_mix = mixup, token_mix
        self._loss = loss

    @classmethod
    def from_config(
        cls,
        cfg: ConfigNode,
        *,
        labels: Sequence[Any] = (),
        model: nn.Module | None = None,
        device: torch.device = CPU,
    ) -> Classification:
        """Build from MODEL.LOSS_FUNC, MODEL.CLASS_WEIGHTS and MIXUP."""
        name, classes = cfg.MODEL.LOSS_FUNC, cfg.MODEL.NUM_CLASSES
        weights = class_weights(cfg.MODEL.CLASS_WEIGHTS, labels, classes) if labels else None
        loss = get_loss(name, None if weights is None else weights.to(device))
        mixup = Mixup.from_config(cfg) if cfg.MIXUP.ENABLE else None
        token_mix = TokenMix(cfg.EVENT2VEC.TOKEN_MIX) if cfg.EVENT2VEC.TOKEN_MIX else None
        return cls(classes, loss, name in SOFT_LOSSES, cfg.MIXUP.LABEL_SMOOTH_VALUE, mixup, token_mix)

    @classmethod
    def check_config(cls, cfg: ConfigNode) -> None:
        """Check that the loss is for exclusive classes, and that it supports MixUp if that is enabled."""
        name, mixes_tokens = cfg.MODEL.LOSS_FUNC, cfg.EVENT2VEC.TOKEN_MIX > 0
        if mixes_tokens and not find_network(cfg).mixes_tokens:
            raise ConfigError(
                f"EVENT2VEC.TOKEN_MIX ({cfg.EVENT2VEC.TOKEN_MIX}) does not work with MODEL.MODEL_NAME "
                f"{cfg.MODEL.MODEL_NAME}, only with Event2VecV2 and Event2VecV3. Set it to 0"
            )
        if name not in _LOSSES:
            raise ConfigError(
                f"MODEL.LOSS_FUNC {name} does not fit MODEL.TASK {cfg.MODEL.TASK}. Set it to {' or '.join(_LOSSES)}"
            )
        mixing = [key for key, on in (("MIXUP.ENABLE", cfg.MIXUP.ENABLE), ("EVENT2VEC.TOKEN_MIX", mixes_tokens)) if on]
        if mixing and name not in SOFT_LOSSES:
            raise ConfigError(
                f"{mixing[0]} mixes labels, which MODEL.LOSS_FUNC {name} does not support. "
                f"Set MODEL.LOSS_FUNC {' or '.join(sorted(SOFT_LOSSES))}"
            )

    def targets(self, inputs: Any, labels: torch.Tensor, rng: np.random.Generator) -> tuple[Any, torch.Tensor]:
        """Return class indices (N,), or mixed and smoothed labels (N, K)."""
        if self.mixup is not None:
            return self.mixup(inputs, labels, rng)
        if self.token_mix is not None:
            return self.token_mix(inputs, smooth_one_hot(labels, self.num_classes, self.smoothing), rng)
        return inputs, smooth_one_hot(labels, self.num_classes, self.smoothing) if self.soft else labels

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of MODEL.LOSS_FUNC."""
        return self._loss(outputs, targets)

    def eval_loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of MODEL.LOSS_FUNC, without label smoothing."""
        return self._loss(outputs, smooth_one_hot(labels, self.num_classes, 0.0) if self.soft else labels)

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the top-1 accuracy in percent; of mixed labels, the class with the largest weight is correct."""
        labels = targets.argmax(1) if targets.ndim == 2 else targets
        return 100.0 * (outputs.argmax(1) == labels).float().mean()[None]

    def evaluator(self, cfg: ConfigNode, world: World, split: str = TEST) -> ClassificationEvaluator:
        """Return the evaluator of a split, with all views of a test or one of a validation."""
        is_test = split == TEST
        return ClassificationEvaluator(
            world,
            self.num_classes,
            self.ensemble(cfg),
            keep_logits=is_test and bool(cfg.TEST.SAVE_RESULTS_PATH),
            folder=Path(cfg.OUTPUT_DIR),
            views=cfg.TEST.NUM_ENSEMBLE_VIEWS if is_test else 1,
            crops=cfg.TEST.NUM_SPATIAL_CROPS if is_test else 1,
            single_samples=find_dataset(cfg, split).input_kind == EVENTS,
        )

    @classmethod
    def ensemble(cls, cfg: ConfigNode) -> Ensemble:
        """Return the ensemble of DATA.ENSEMBLE_METHOD and TEST.ENSEMBLE_ON, with softmax scores."""
        return Ensemble(cfg.DATA.ENSEMBLE_METHOD, cfg.TEST.ENSEMBLE_ON)
