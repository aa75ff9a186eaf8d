"""What the head of a network sees of each medium of an index, in the order of the index.

Shapes: B clips, V views (temporal x spatial) of a medium, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, dataset_spec, views_loader, views_of_records
from slowfast.datasets.failures import FailureLedger
from slowfast.datasets.types import Failure, Record
from slowfast.engine.evaluate import evaluate
from slowfast.engine.forward import ClipForward
from slowfast.engine.test import network_to_test
from slowfast.errors import DataError
from slowfast.models.weights import head_names
from slowfast.runtime.distributed import join
from slowfast.runtime.progress import Progress

MEAN, ALL = "mean", "all"
VIEWS = (MEAN, ALL)


class HeadInput(nn.Module):
    """A network that gives what its head sees instead of logits: input -> (B, D).

    Of several heads one after another; of a network that goes over clips frame by frame the mean over a clip's frames.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        layers = dict(model.named_modules())
        self._heads = [layers[name] for name in head_names(model) if name in layers]

    def forward(self, x: Any) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        hooks = [head.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for head in self._heads]
        try:
            batch = len(self.model(x))
        finally:
            for hook in hooks:
                hook.remove()
        features = torch.cat(seen, 1)
        return features if len(features) == batch else features.unflatten(0, (batch, -1)).mean(1)


@dataclass(frozen=True)
class Features:
    """Rows of features, and what could not be read."""

    records: list[Record]  # of the media that were read, in the order of the index
    rows: torch.Tensor  # float32 (media, D), or (media, V, D)
    failures: list[Failure]


def extract_features(cfg: ConfigNode, split: str, views: str = MEAN) -> Features:
    """Features of every medium of a split's index, over the views of a test: their mean, or one row a view.

    Raises IndexFileError for a broken index, CheckpointError, and DataError where nothing can be read.
    """
    records = dataset_spec(cfg, split).read_index(cfg, split)
    dataset = views_of_records(cfg, split, records, all_views=True)
    world = join(cfg.NUM_GPUS)
    model = HeadInput(network_to_test(cfg, world.device))
    forward = ClipForward.from_config(cfg, world.device, split)
    ledger = FailureLedger(len(records))
    progress = Progress("features", len(records), "files", shown=True, every=cfg.LOG_PERIOD)
    loader = views_loader(cfg, world, dataset)
    join_views = _mean if views == MEAN else _as_they_are
    try:
        with loader:
            results, _ = evaluate(model, loader, forward, join_views, cfg.TEST.BATCH_SIZE, ledger, progress)
    finally:
        progress.close()
    read = [(result.record, result.scores) for result in results if result.scores is not None]
    if not read:
        first = ledger.all[0]
        raise DataError(f"none of {len(records)} files can be read; the first: {first.name}: {first.reason}")
    rows = torch.stack([scores for _, scores in read]).float()
    return Features([record for record, _ in read], rows, ledger.all)


def _mean(outputs: torch.Tensor) -> torch.Tensor:
    """(V, D) -> (D,), in float64 on the way."""
    return outputs.double().mean(0).float()


def _as_they_are(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


def names_of_splits() -> Sequence[str]:
    """What `split` can be, the usual one first."""
    return (TEST, "val", "train")
