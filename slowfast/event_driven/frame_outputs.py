"""Outputs that are written frame by frame during a run: log of the activity, and annotated videos.

An annotated video shows the network's input with changed patches outlined and the top classes of every frame.

Notation: K frames of each of S videos, n x n patches of the first stage, C classes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import av
import cv2
import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.types import failure_reason
from slowfast.errors import DataError, system_reason
from slowfast.event_driven.activity import FrameActivity
from slowfast.event_driven.feed import Batch, Opened
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.sources import Source, source_files
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import row_writer
from slowfast.visualization.results import BEST
from slowfast.visualization.video_writer import NAME_LENGTH, VideoWriter, draw_lines, pad_to_even

FRAMES_FILE = "event_frames.csv"
_DIGITS = 6  # significant digits
_FRAME_COMPARISON = ("same_class", "logit_error_mean", "logit_error_max")
MIN_SIDE = 448  # pixels; smaller images would make the text illegible
OUTLINE = (255, 210, 0)  # RGB
FOLDER = "annotated"
_WRITE_ERRORS = (av.FFmpegError, OSError)


class FrameLog:
    """CSV file with one line per frame, flushed after every write; replaces the file of an earlier run.

    Columns: path of the video, or its name if it has one; frame number, without dropped frames; time in the video in
    seconds, for live sources the Unix time at which the frame was computed; patches computed per stage; multiply-adds;
    index of the top-1 class; if the frame was compared with dense inference, whether the class is the same, and the
    mean and maximum logit error; with random weights `untrained`, which is 1.
    """

    def __init__(self, folder: Path, stages: int, untrained: bool) -> None:
        self.path = folder / FRAMES_FILE
        self._untrained = (1,) if untrained else ()
        self._heading = ("path", "frame", "seconds", *(f"active_{n}" for n in range(1, 1 + stages)))
        self._file: TextIO | None = None

    def write(self, name: str, first: int, seconds: list[float], frames: FrameActivity) -> None:
        """Write the lines of K frames.

        Args:
            name: Name of the video.
            first: Number of the first frame.
            seconds: Time of each frame.
            frames: Activity of the frames.

        Raises:
            DataError: If the file cannot be written.
        """
        try:
            file = self._file or self._create()
            write = row_writer(file)
            for k, time in enumerate(seconds):
                values = (*frames.active[k].tolist(), frames.macs[k], frames.predictions[k], *_comparison(frames, k))
                write((name, first + k, f"{time:.3f}", *values, *self._untrained))
            file.flush()
        except OSError as error:
            raise self._error(error) from None

    def _create(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # deleted instead of truncated, because another process may still write to it
        # surrogateescape: file names need not be valid text
        self._file = self.path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        untrained = ("untrained",) if self._untrained else ()
        row_writer(self._file)((*self._heading, "macs", "class", *_FRAME_COMPARISON, *untrained))
        return self._file

    def extend(self, folder: Path) -> None:
        """Append the lines of the log in another folder, if there is one, and delete it."""
        other = folder / FRAMES_FILE
        if not other.exists():
            return
        try:
            file = self._file or self._create()
            with other.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
                next(lines)
                shutil.copyfileobj(lines, file)
            file.flush()
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {system_reason(error)}. Set EVENT.FRAME_LOG False to run without it"
        )

    @property
    def written(self) -> dict[str, Path]:
        """Path of the file by description; empty if there is none."""
        return {"metrics per frame": self.path} if self._file is not None else {}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _comparison(frames: FrameActivity, k: int) -> tuple[object, ...]:
    of = frames.agreement
    if of is None:
        return ("",) * len(_FRAME_COMPARISON)
    return int(of.same[k]), f"{of.mean[k]:.{_DIGITS}g}", f"{of.largest[k]:.{_DIGITS}g}"


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
        """Folder of the videos by description; empty if there is none."""
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
        """Discard a file that cannot be written and continue the run."""
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
        end = self.close if error is None else self._drop  # after a normal stop, files written so far are complete
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
