"""Annotated videos: the network's input with changed patches outlined and the top classes of every frame.

Notation: K frames of each of S videos, n x n patches of the first stage, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.types import failure_reason
from slowfast.event_driven.messages import Batch, Opened
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.sources import Source, source_files
from slowfast.utils.logging import get_logger
from slowfast.visualization.results import BEST
from slowfast.visualization.video_writer import NAME_LENGTH, VideoWriter, draw_lines, pad_to_even

MIN_SIDE = 448  # pixels, so that the text is legible
OUTLINE = (255, 210, 0)  # RGB
FOLDER = "annotated"
_WRITE_ERRORS = (av.FFmpegError, OSError)


class AnnotatedVideos:
    """Writer of one annotated video per source; a file that cannot be written does not stop the run.

    Args:
        network: Network that processes the videos.
        targets: Path of the annotated video for the index of each source; empty to write none.
        names: Class names.
        note: First line of text on every frame; "" for none.
    """

    def __init__(self, network: PatchNetwork, targets: dict[int, Path], names: Sequence[str], note: str = "") -> None:
        self.network, self.targets, self.names, self.note = network, targets, names, note
        self._open: dict[int, tuple[Source, VideoWriter]] = {}

    @classmethod
    def from_config(
        cls,
        cfg: ConfigNode,
        network: PatchNetwork,
        sources: Sequence[Source],
        names: Sequence[str],
        note: str,
        output: Path,
    ) -> AnnotatedVideos:
        """Build from EVENT.ANNOTATE, with a folder in `output`."""
        files = source_files(sources, output / FOLDER, ".mp4") if cfg.EVENT.ANNOTATE else {}
        return cls(network, files, names, note)

    @property
    def written(self) -> dict[str, Path]:
        """Folder of the videos if there is one, by description."""
        folder = next((target.parent for target in self.targets.values()), None)
        return {"annotated videos": folder} if folder is not None else {}

    def open(self, opened: Opened) -> None:
        """Begin the video of a source."""
        index = opened.source.record.index
        if index in self.targets:
            with self._attempt(opened.source):
                self._open[index] = opened.source, VideoWriter(self.targets[index], opened.rate, opened.time_base)

    def write(self, batch: Batch, logits: torch.Tensor) -> None:
        """Write the next frames of some videos with their logits (K, S, C)."""
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
        lines = [f"{100 * score:5.1f} %  {self.names[label][:NAME_LENGTH]}" for score, label in best]
        return [self.note, *lines] if self.note else lines

    def close(self, source: Source) -> None:
        """Finish the video of a source."""
        if source.record.index in self._open:
            with self._attempt(source):
                self._open.pop(source.record.index)[1].__exit__(None)

    def take(self, source: Source, output: Path) -> None:
        """Take over the annotated video of a source that another process has written in the folder `output`."""
        target = self.targets.get(source.record.index)
        if target is None:
            return
        for file in (output / FOLDER).glob("*.mp4"):
            with self._attempt(source):
                target.parent.mkdir(exist_ok=True)
                os.replace(file, target)

    @contextmanager
    def _attempt(self, source: Source) -> Iterator[None]:
        """Give up this file, not the run, if it cannot be written."""
        try:
            yield
        except _WRITE_ERRORS as error:
            get_logger().warning(
                f"Could not write the annotated video of {source.record.name}: {failure_reason(error)}"
            )
            self._drop(source)

    def _drop(self, source: Source) -> None:
        if source.record.index in self._open:
            with suppress(*_WRITE_ERRORS):
                self._open.pop(source.record.index)[1].__exit__(RuntimeError)

    def __enter__(self) -> AnnotatedVideos:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        end = self.close if error is None else self._drop  # after a normal stop the files so far are complete
        for source, _file in list(self._open.values()):
            end(source)


def draw_patches(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Outline patches on an enlarged image.

    Args:
        image: RGB image, uint8 (side, side, 3).
        changed: Mask of the patches, bool (n, n).

    Returns:
        Image uint8 (z side, z side, 3) with an integer z, at least MIN_SIDE pixels large.
    """
    side, patch = len(image), len(image) // len(changed)
    zoom = -(-MIN_SIDE // side)
    larger = cv2.resize(image, (zoom * side, zoom * side), interpolation=cv2.INTER_LINEAR)
    step = zoom * patch
    for row, column in np.argwhere(changed):
        corner = (int(column) * step, int(row) * step)
        cv2.rectangle(larger, corner, (corner[0] + step - 1, corner[1] + step - 1), OUTLINE, 1)
    return larger
