"""Predictions for videos, images, folders of frames and event recordings without an index file.

Decoding, views, transforms and ensemble are those of testing, so the scores of a file are the same as in a test. Only
the events drawn from a recording depend on its position among the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_loader, find_dataset, has_data, views_of_records
from slowfast.datasets.dvs.sample import DATASET
from slowfast.datasets.index.samples import UNLABELED, FoundSamples, SampleKind, find_samples
from slowfast.datasets.loader import EvalLoader
from slowfast.datasets.types import FailureLedger, Record
from slowfast.engine.cluster_evaluation import evaluate_on_cluster, on_cluster
from slowfast.engine.evaluate import EvaluationTime, Process, best_classes, evaluate
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import network_to_test
from slowfast.engine.tasks import task_class
from slowfast.engine.test import class_names_of
from slowfast.errors import ConfigError, DataError, UserError
from slowfast.models.protocol import EVENTS, Network
from slowfast.utils.distributed import World, init_distributed
from slowfast.utils.screen import Progress
from slowfast.visualization.results import BEST

Read = Callable[[Sequence[Record]], EvalLoader]
EvaluateOnCluster = Callable[[Sequence[Record], Process, FailureLedger, Progress], EvaluationTime]


@dataclass(frozen=True)
class Prediction:
    """Prediction for one file.

    Attributes:
        record: The file.
        names: Class names.
        scores: Class probabilities, float64 of shape (classes,); None if the file could not be read.
        failure: Reason why the file, or a part of it, could not be read.
    """

    record: Record
    names: Sequence[str]
    scores: torch.Tensor | None
    failure: str = ""

    @property
    def path(self) -> str:
        """Return the path as it was given."""
        return self.record.name

    def best_classes(self, count: int = BEST) -> list[tuple[int, float]]:
        """Return (class, score) of the best classes, best first; empty if the sample is unreadable."""
        return [] if self.scores is None else best_classes(self.scores, count)

    def best(self, count: int = BEST) -> list[tuple[str, float]]:
        """Return (class name, score) of the best classes, best first; empty if the sample is unreadable."""
        return [(self.names[label], score) for label, score in self.best_classes(count)]


class Predictor:
    """Classifier of files with a trained model: `Predictor.from_config(cfg)("clip.mp4").best(5)`.

    Args:
        model: Model with its weights.
        names: Class names.
        read: Returns the loader of all views of some records.
        wanted: Kinds of files that the model accepts.
        forward: Forward pass from uint8 clips to logits.
        ensemble: Combines the logits of the views of a file.
        batch_clips: Clips per batch, of one or several files.
        cluster: Evaluates some records on a cluster instead of in this process.

    Attributes:
        time: Duration and number of clips of the last call.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        read: Read,
        wanted: SampleKind,
        forward: ClipForward,
        ensemble: Callable[[torch.Tensor], torch.Tensor],
        batch_clips: int = 8,
        cluster: EvaluateOnCluster | None = None,
    ) -> None:
        self.model, self.names, self.read, self.wanted = model, names, read, wanted
        self.forward, self.ensemble, self.batch_clips = forward, ensemble, batch_clips
        self._cluster = cluster
        self.time = EvaluationTime()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Predictor:
        """Build the model and load its weights, with the views and the ensemble of testing. Raises UserError."""
        _check_times(cfg)
        world = init_distributed(cfg.NUM_GPUS)
        model = network_to_test(cfg, world.device)
        return cls.of_model(cfg, model, class_names_of(cfg, model), world)

    @classmethod
    def of_model(cls, cfg: ConfigNode, model: nn.Module, names: Sequence[str], world: World) -> Predictor:
        """Build from a model with its weights, with the views and the ensemble of testing."""
        loaded = model.loaded if isinstance(model, Network) else None
        return cls(
            model,
            names,
            lambda records: _views_to_read(cfg, world, records),
            SampleKind.from_config(cfg),
            ClipForward.from_config(cfg, world.device, TEST),
            task_class(cfg).ensemble(cfg),
            cfg.TEST.BATCH_SIZE,
            (lambda records, *rest: evaluate_on_cluster(cfg, TEST, records, loaded, *rest))
            if on_cluster(cfg, world)
            else None,
        )

    def __call__(self, path: str | Path) -> Prediction:
        """Classify one file. Raises DataError if it cannot be read, UserError for a folder of several files."""
        found = find_samples([Path(path)], self.wanted)
        if len(found.records) > 1:
            raise UserError(
                f"{path} contains {len(found.records)} samples. predict([{str(path)!r}]) returns all predictions"
            )
        return next(prediction for prediction in self.predict_found(found) if prediction.scores is not None)

    def predict(self, paths: Iterable[str | Path]) -> list[Prediction]:
        """Classify files and all files in folders.

        Args:
            paths: Files and folders.

        Returns:
            The predictions; those of files that could not be read have a `failure` and no scores.

        Raises:
            DataError: If no file can be read.
        """
        return self.predict_found(find_samples(map(Path, paths), self.wanted))

    def predict_found(self, found: FoundSamples, progress: Progress | None = None) -> list[Prediction]:
        """Classify files that `find_samples` has found; see `predict`."""
        ledger = FailureLedger(found.count)
        scores: dict[int, torch.Tensor | None] = {}

        def process(record: Record, outputs: torch.Tensor | None) -> None:
            scores[record.index] = None if outputs is None else self.ensemble(outputs)

        if found.records:
            shown = progress or Progress("predict", len(found.records), "files", shown=False, every=1)
            try:
                self.time = self._evaluate(found.records, process, ledger, shown)
            finally:
                if progress is None:
                    shown.close()
        reasons = {failure.index: failure.reason for failure in [*ledger.all, *found.refused]}
        if all(score is None for score in scores.values()):
            raise DataError(_nothing_read(found, reasons))
        records = [*found.records, *(Record(f.index, Path(f.name), f.name, UNLABELED) for f in found.refused)]
        predictions = [Prediction(r, self.names, scores.get(r.index), reasons.get(r.index, "")) for r in records]
        return sorted(predictions, key=lambda prediction: prediction.record.index)

    def _evaluate(
        self, records: Sequence[Record], process: Process, ledger: FailureLedger, progress: Progress
    ) -> EvaluationTime:
        if self._cluster is not None:
            return self._cluster(records, process, ledger, progress)
        with self.read(records) as loader:
            return evaluate(self.model, loader, self.forward, process, self.batch_clips, ledger, progress)


def _views_to_read(cfg: ConfigNode, world: World, records: Sequence[Record]) -> EvalLoader:
    """Return the loader of all test views of some records."""
    return eval_loader(cfg, world, views_of_records(cfg, TEST, records, all_views=True))


def _check_times(cfg: ConfigNode) -> None:
    """Raise ConfigError if times are normalized by the dataset's longest recording, whose duration is unknown."""
    of_training = find_dataset(cfg, TEST).input_kind == EVENTS and cfg.DVS.TIME_NORM == DATASET
    if of_training and not cfg.DVS.LONGEST and not has_data(cfg):
        raise ConfigError(
            "DVS.TIME_NORM dataset divides times by the duration of the longest training recording. Set DVS.LONGEST to "
            "it (microseconds), or DATA.PATH_TO_DATA_DIR to the folder of the recordings"
        )


def _nothing_read(found: FoundSamples, reasons: dict[int, str]) -> str:
    names = {record.index: record.name for record in found.records}
    names |= {failure.index: failure.name for failure in found.refused}
    first = min(reasons)
    line = f"{names[first]}: {reasons[first]}"
    return line if len(names) == 1 else f"none of {len(names)} files and folders can be read. The first one: {line}"
