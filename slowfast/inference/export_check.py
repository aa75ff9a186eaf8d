"""Comparison of an exported file with its model: logits and predicted classes on random inputs or on samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_loader, views_of_records
from slowfast.datasets.index.samples import SampleKind, find_samples
from slowfast.datasets.loader import stack_clips
from slowfast.engine.forward import ClipForward
from slowfast.errors import DataError, UserError
from slowfast.inference.export_formats import FLOAT16, INT8, Run, example
from slowfast.inference.export_metadata import FLOAT32
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger

TOLERANCE = 1e-4  # maximum difference of logits, relative to the largest, in float32
ROUNDS = 4  # rounds of random batches in reduced precision
MAX_CLIPS = 64  # clips taken from the samples
SAME_CLASSES = 0.95  # fraction of inputs with the same predicted class below which a warning is logged
CPU = torch.device("cpu")


class ExportDiffers(UserError):
    """Raised if the logits of an exported file differ from the model's."""


@dataclass(frozen=True)
class Limits:
    """Largest relative difference of logits without a warning, and largest one of a file that is kept."""

    usual: float
    kept: float


LIMITS = {FLOAT32: Limits(TOLERANCE, TOLERANCE), FLOAT16: Limits(0.01, 0.1), INT8: Limits(0.1, 0.5)}


@dataclass(frozen=True)
class Comparison:
    """Comparison of an exported file with its model.

    Attributes:
        difference: Largest difference of logits, relative to the largest logit of its batch; may be NaN.
        same: Number of inputs with the same predicted class.
        inputs: Number of inputs.
        what: Kind of the inputs.
    """

    difference: float
    same: int
    inputs: int
    what: str = "random inputs"

    def __str__(self) -> str:
        return (
            f"largest difference {self.difference:.1e} of the largest logit, same class for {self.same} of "
            f"{self.inputs} {self.what}"
        )

    def check(self, precision: str = FLOAT32) -> None:
        """Raise ExportDiffers if the file must not be kept, and log a warning if the agreement is poor."""
        limits = LIMITS[precision]
        if not self.difference <= limits.kept:  # nor NaN
            raise ExportDiffers(
                f"the logits of the exported model differ by {self.difference:.1e} of the largest, more than "
                f"{limits.kept:g}"
            )
        if self.difference > limits.usual or (precision != FLOAT32 and self.same < SAME_CLASSES * self.inputs):
            get_logger().warning(
                f"--precision {precision}: poor agreement with float32 ({self}; usual are differences up to "
                f"{limits.usual:g} and the same class for {100 * SAME_CLASSES:g} %). Compare accuracies before use"
            )


def random_batches(shape: Sequence[int], sizes: Sequence[int], rounds: int = 1) -> Iterator[torch.Tensor]:
    """Yield random batches of each size, `rounds` times; their seeds differ from 0, that of the traced inputs."""
    for seed, size in enumerate(list(sizes) * rounds, start=1):
        yield example(shape, size, seed)


@torch.no_grad()
def compare(model: nn.Module, run: Run, batches: Iterable[torch.Tensor], what: str = "random inputs") -> Comparison:
    """Compare the logits of an exported file with those of its model.

    Args:
        model: Model that was exported.
        run: Function that runs the exported file.
        batches: Inputs.
        what: Kind of the inputs, for the report.

    Raises:
        ExportDiffers: If shapes differ.
    """
    worst, same, inputs = 0.0, 0, 0
    for x in batches:
        wanted, found = model.eval()(x), run(x)
        if found.shape != wanted.shape:
            raise ExportDiffers(
                f"the exported model returns logits of shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
            )
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        worst = difference if difference != difference else max(worst, difference)  # NaN stays
        same += int((found.flatten(1).argmax(1) == wanted.flatten(1).argmax(1)).sum())
        inputs += len(x)
    return Comparison(worst, same, inputs, what)


def sample_batches(cfg: ConfigNode, paths: Sequence[Path], size: int) -> list[torch.Tensor]:
    """Return normalized clips of files, at most MAX_CLIPS, in batches of one size.

    Args:
        cfg: Config for evaluating the model.
        paths: Files and folders.
        size: Batch size.

    Raises:
        DataError: If a file cannot be read.
    """
    found = find_samples(paths, SampleKind.from_config(cfg))
    failures = list(found.refused)
    forward, clips = ClipForward.from_config(cfg, CPU, TEST), list[Any]()
    if found.records and not failures:
        views = views_of_records(cfg, TEST, found.records, all_views=False)
        with eval_loader(cfg, World(), views) as loader:
            for sample in loader:
                failures += [failure for failure in sample.failures if failure.lost]
                clips += sample.clips(CPU)
                if len(clips) >= MAX_CLIPS:
                    break
    if failures:
        raise DataError(f"--samples: {failures[0].name} cannot be read: {failures[0].reason}")
    if not clips:
        raise DataError("--samples contain no clip. Name other files")
    clips += clips[:1] * (-len(clips) % size)  # the first one fills the last batch
    batches = [clips[start : start + size] for start in range(0, len(clips), size)]
    return [forward.prepare(stack_clips(batch)) for batch in batches]
