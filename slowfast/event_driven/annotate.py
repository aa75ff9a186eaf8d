"""Videos as the network sees them, with the changed patches outlined and the best classes written on every frame.

K frames of each of S videos, n x n patches of the first stage, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.media import target_files
from slowfast.datasets.types import failure_reason
from slowfast.event_driven.feed import Batch, Opened
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.sources import Source
from slowfast.utils.logging import get_logger
from slowfast.visualization.results import BEST
from slowfast.visualization.video_writer import NAME_LENGTH, VideoWriter, draw_lines, pad_to_even

SHOWN_SIDE = 448  # pixels at least, so that text can be read
OUTLINE = (255, 210, 0)  # R G B
FOLDER = "annotated"
_NOT_TAKEN = (av.FFmpegError, OSError)


class AnnotatedVideos:
    """The files that are being written, one a video; none without `targets`."""

    def __init__(self, network: PatchNetwork, targets: dict[int, Path], names: Sequence[str]) -> None:
        """targets: of each source's index; names: of the classes."""
        self.network, self.targets, self.names = network, targets, names
        self._open: dict[int, tuple[Source, VideoWriter]] = {}

    @classmethod
    def from_config(
        cls, cfg: ConfigNode, network: PatchNetwork, sources: Sequence[Source], names: Sequence[str]
    ) -> AnnotatedVideos:
        """As EVENT.ANNOTATE says, in a folder of OUTPUT_DIR."""
        records = [source.record for source in sources if cfg.EVENT.ANNOTATE]
        files = target_files(records, Path(cfg.OUTPUT_DIR) / FOLDER, ".mp4")
        return cls(network, {record.index: file for record, file in zip(records, files, strict=True)}, names)

    @property
    def written(self) -> dict[str, Path]:
        """What there is, and where."""
        folder = next((target.parent for target in self.targets.values()), None)
        return {"videos with changed patches and classes": folder} if folder is not None else {}

    def open(self, opened: Opened) -> None:
        """A video begins."""
        index = opened.source.record.index
        if index in self.targets:
            with self._attempt(opened.source):
                self._open[index] = opened.source, VideoWriter(self.targets[index], opened.rate, opened.time_base)

    def write(self, batch: Batch, logits: torch.Tensor) -> None:
        """The next frames of some videos and their logits (K, S, C)."""
        for s, source in enumerate(batch.sources):
            if source.record.index in self._open:
                with self._attempt(source):
                    self._write(self._open[source.record.index][1], batch, s, logits[:, s])

    def _write(self, file: VideoWriter, batch: Batch, s: int, logits: torch.Tensor) -> None:
        for k, tick in enumerate(batch.ticks[s]):
            changed = self.network.as_map(batch.changes.mask[k, s, :, None], 0)[:, :, 0]  # n n
            image = draw_patches(batch.images[k, s].numpy(), changed.cpu().numpy())
            file.write(draw_lines(pad_to_even(image), self._lines(logits[k])), tick)

    def _lines(self, logits: torch.Tensor) -> list[str]:
        scores, classes = logits.softmax(0).topk(min(BEST, len(logits)))
        best = zip(scores.tolist(), classes.tolist(), strict=True)
        return [f"{100 * score:5.1f} %  {self.names[label][:NAME_LENGTH]}" for score, label in best]

    def close(self, source: Source) -> None:
        """A video has ended."""
        if source.record.index in self._open:
            with self._attempt(source):
                self._open.pop(source.record.index)[1].__exit__(None)

    @contextmanager
    def _attempt(self, source: Source) -> Iterator[None]:
        """What a disk or FFmpeg does not take ends this file, not the run."""
        try:
            yield
        except _NOT_TAKEN as error:
            get_logger().warning(f"{source.record.name} cannot be annotated: {failure_reason(error)}")
            self._drop(source)

    def _drop(self, source: Source) -> None:
        if source.record.index in self._open:
            with suppress(*_NOT_TAKEN):
                self._open.pop(source.record.index)[1].__exit__(RuntimeError)

    def __enter__(self) -> AnnotatedVideos:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        end = self.close if error is None else self._drop  # what was looked at until now is whole
        for source, _file in list(self._open.values()):
            end(source)


def draw_patches(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """A larger image uint8 (z side, z side, 3) of (side, side, 3) with the patches that bool (n, n) marks outlined."""
    side, patch = len(image), len(image) // len(changed)
    zoom = -(-SHOWN_SIDE // side)
    larger = cv2.resize(image, (zoom * side, zoom * side), interpolation=cv2.INTER_LINEAR)
    step = zoom * patch
    for row, column in np.argwhere(changed):
        corner = (int(column) * step, int(row) * step)
        cv2.rectangle(larger, corner, (corner[0] + step - 1, corner[1] + step - 1), OUTLINE, 1)
    return larger
