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
from slowfast.datasets.index.entries import classes_of
from slowfast.datasets.mixup import Mixup, TokenMix, smooth_one_hot
from slowfast.datasets.types import Record
from slowfast.engine.evaluate import Ensemble, best_classes
from slowfast.engine.losses import SOFT_LOSSES, Loss, class_weights, get_loss
from slowfast.engine.tasks.base import CPU, TASK_REGISTRY, Evaluator, Task
from slowfast.engine.tasks.scores import BINS, ScoreRows, calibration_error, gather_rows
from slowfast.errors import ConfigError
from slowfast.models.build import find_network
from slowfast.models.protocol import EVENTS
from slowfast.utils.distributed import World
from slowfast.visualization.per_class import ClassAccuracies, confusion_image, write_per_class
from slowfast.visualization.results import (
    BEST,
    PERCENT_DIGITS,
    Metric,
    PredictionRow,
    Results,
    VideoPrediction,
    class_row,
)
from slowfast.visualization.scores import scores_path, write_scores
from slowfast.visualization.sheets import draw_confusion_matrix, draw_mistakes, draw_samples

TOP1, TOP5 = Metric("top1", "top-1"), Metric("top5", "top-5")
MEAN_CLASS = Metric("mean_class_accuracy", "mean-class accuracy")
CALIBRATION = Metric("calibration_error", "calibration error", higher_is_better=False)
_LOSSES = ("cross_entropy", "soft_cross_entropy")


class ClassScoreEvaluator(Evaluator[VideoPrediction]):
    """Base class of the evaluators of tasks with class scores.

    Args:
        world: Processes of the run.
        num_classes: Number of classes.
        ensemble: Combines the logits of a sample's views into its scores.
        keep_logits: Whether to keep the combined logits of all samples (TEST.SAVE_RESULTS_PATH).
        keep_scores: Whether to keep the scores of all classes, for metrics that need them.
        folder: Folder of the temporary files of logits and scores, which take 4 bytes per sample and class.

    Attributes:
        logits: Logits of all samples in the order of `predictions`, NaN for unreadable ones; set by `evaluate` in the
            main process.
    """

    def __init__(
        self,
        world: World,
        num_classes: int,
        ensemble: Ensemble,
        *,
        keep_logits: bool = False,
        keep_scores: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.num_classes, self.ensemble = num_classes, ensemble
        self.keep_logits, self.keep_scores, self.folder = keep_logits, keep_scores, folder
        super().__init__(world)

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        # For the readable samples of this process.
        self.logits = ScoreRows(self.num_classes, self.folder)
        self.scores = ScoreRows(self.num_classes, self.folder)

    def predict(self, record: Record, outputs: torch.Tensor | None) -> VideoPrediction:
        """Return the best classes of a sample."""
        if outputs is None:
            return VideoPrediction(record.index, record.name, record.label)
        scores = self.ensemble(outputs)
        if self.keep_logits:
            self.logits.append(self.ensemble.join(outputs).numpy())
        of_label: tuple[float, ...] = ()
        if self.keep_scores:
            single = scores.float()
            self.scores.append(single.numpy())
            of_label = tuple(single[list(classes_of(record.label))].tolist())
        views = tuple(outputs.argmax(1).tolist())
        best = best_classes(scores, BEST)
        return VideoPrediction(record.index, record.name, record.label, best, views, of_label)

    def evaluate(self) -> Results:
        """Gather the predictions and logits of all processes and return the metrics."""
        results = super().evaluate()
        if self.keep_logits:
            own = np.array([index for index, readable, _ in self._own if readable], np.int64)
            every = self.world.from_main(np.array([one.index for one in self.predictions], np.int64))
            self.logits = gather_rows(self.world, self.logits, own, every, self.folder)
        return results

    def row(self, prediction: VideoPrediction, class_names: Sequence[str]) -> PredictionRow:
        """Return the best classes as a line of predictions.csv."""
        return class_row(prediction.name, prediction.label, prediction.best, class_names)

    def write(self, cfg: ConfigNode, class_names: Sequence[str]) -> dict[str, Path]:
        """Write the logits of all classes if TEST.SAVE_RESULTS_PATH is set."""
        path = scores_path(cfg)
        if path is None:
            return {}
        write_scores(self.predictions, self.logits.blocks(), self.num_classes, path, cfg.TEST.SAVE_RESULTS_PATH)
        return {"all scores": path}

    def draw(self, cfg: ConfigNode, dataset: EvalDataset, class_names: Sequence[str]) -> dict[str, Path]:
        """Draw a contact sheet of test samples, and the most confident mistakes."""
        mistakes = draw_mistakes(Path(cfg.OUTPUT_DIR), dataset, self.predictions, class_names)
        return draw_samples(Path(cfg.OUTPUT_DIR), dataset, self.predictions, class_names) | mistakes


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
