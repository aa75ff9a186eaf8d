"""Outputs during a run: log of the activity per frame, annotated videos, and status lines of live sources.

An annotated video shows the network's input with changed patches outlined and the top classes of every frame.

Notation: K frames of each of S videos, n x n patches of the first stage, C classes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import torch

from slowfast.errors import DataError, system_reason
from slowfast.event_driven.activity import FrameActivity, VideoActivity
from slowfast.event_driven.connection import Connection, LatencyHistogram
from slowfast.event_driven.feed import Batch
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.sources import Source
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import create_csv, row_writer
from slowfast.visualization.results import BEST
from slowfast.visualization.video_writer import SourceVideos, class_lines, draw_lines, pad_to_even

FRAMES_FILE = "event_frames.csv"
_DIGITS = 6  # significant digits
_FRAME_COMPARISON = ("same_class", "logit_error_mean", "logit_error_max")
MIN_SIDE = 448  # pixels; smaller images would make the text illegible
OUTLINE = (255, 210, 0)  # RGB
FOLDER = "annotated"
INTERVAL = 10.0  # seconds between status lines
FEW = 8  # maximum number of live sources with individual status lines
_NAMED = 5  # disconnected sources named in the summary line


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
        active, more = (f"active_{n}" for n in range(1, 1 + stages)), ("untrained",) * untrained
        self._heading = ("path", "frame", "seconds", *active, "macs", "class", *_FRAME_COMPARISON, *more)
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
            file = self._open()
            write = row_writer(file)
            for k, time in enumerate(seconds):
                values = (*frames.active[k].tolist(), frames.macs[k], frames.predictions[k], *_comparison(frames, k))
                write((name, first + k, f"{time:.3f}", *values, *self._untrained))
            file.flush()
        except OSError as error:
            raise self._error(error) from None

    def _open(self) -> TextIO:
        """Create the file unless it is open."""
        if self._file is None:
            self._file = create_csv(self.path, self._heading)
        return self._file

    def extend(self, folder: Path) -> None:
        """Append the lines of the log in another folder, if there is one, and delete it."""
        other = folder / FRAMES_FILE
        if not other.exists():
            return
        try:
            file = self._open()
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


class AnnotatedVideos(SourceVideos):
    """Annotated videos of a run.

    Args:
        targets: File to write by the index of a source; empty to write none.
        network: Network that processes the videos.
        names: Class names.
        note: First line of text on every frame; "" for none.
    """

    def __init__(self, targets: dict[int, Path], network: PatchNetwork, names: Sequence[str], note: str = "") -> None:
        super().__init__(targets)
        self.network, self.names, self.note = network, names, note

    @property
    def written(self) -> dict[str, Path]:
        """Folder of the videos by description; empty if there is none."""
        folder = next((target.parent for target in self.targets.values()), None)
        return {"annotated videos": folder} if folder is not None else {}

    def write(self, batch: Batch, logits: torch.Tensor) -> None:
        """Write the next frames of some videos with their logits (K, S, C)."""
        for s, source in enumerate(batch.sources):
            for k, tick in enumerate(batch.ticks[s] if self.is_open(source.record) else []):
                changed = self.network.as_map(batch.changes.mask[k, s, :, None], 0)[:, :, 0]  # n n
                image = draw_patches(batch.images[k, s].numpy(), changed.cpu().numpy())
                self.add(source.record, draw_lines(pad_to_even(image), self._lines(logits[k, s])), tick)

    def _lines(self, logits: torch.Tensor) -> list[str]:
        scores, classes = logits.softmax(0).topk(min(BEST, len(logits)))
        names = (self.names[label] for label in classes.tolist())
        lines = class_lines(zip(names, scores.tolist(), strict=True))
        return [self.note, *lines] if self.note else lines

    def take(self, source: Source, output: Path) -> None:
        """Take over the annotated video of a source that another process has written in the folder `output`."""
        target = self.targets.get(source.record.index)
        if target is None:
            return
        for file in (output / FOLDER).glob("*.mp4"):
            with self.attempt(source.record):
                target.parent.mkdir(exist_ok=True)
                os.replace(file, target)


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


@dataclass
class _Interval:
    """Counts of a source since the last lines."""

    frames: int = 0
    active: int = 0  # patches of the first stage that were computed
    prediction: int | None = None  # class of the last frame
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)


class LiveStatus:
    """Periodic log lines: one about all live sources every INTERVAL seconds, and one about each if there are few.

    Args:
        sources: Sources of the run.
        names: Class names.
        patches: Number of patches of the first stage.
        note: Text appended to the summary line, such as that the weights are untrained; "" for none.
    """

    def __init__(self, sources: Sequence[Source], names: Sequence[str], patches: int, note: str = "") -> None:
        self._sources = [source for source in sources if source.live]
        self._names, self._patches, self._note = names, patches, note
        self._began: float | None = None  # perf_counter() of the last lines, or of the first poll
        self._dropped: dict[int, int] = {}  # dropped frames by source when the last lines were printed
        self._now = self._new_interval()

    def _new_interval(self) -> dict[int, _Interval]:
        return {source.record.index: _Interval() for source in self._sources}

    def add(self, source: Source, frames: FrameActivity, latencies: np.ndarray) -> None:
        """Add the next K frames of a source; seconds from the arrival of each to its logits (K,)."""
        now = self._now[source.record.index]
        now.frames += len(frames)
        now.active += int(frames.active[:, 0].sum())
        now.prediction = int(frames.predictions[-1])
        now.latency.add(latencies)

    def poll(self, connections: Mapping[int, Connection], activity: Mapping[int, VideoActivity]) -> None:
        """Log the lines if they are due; call this often.

        Args:
            connections: Connection of each live source that was opened, by index.
            activity: Activity of each source so far, by index.
        """
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            return
        seconds = now - self._began
        if not self._sources or seconds < INTERVAL:
            return
        dropped = {index: video.dropped for index, video in activity.items()}
        for line in self.lines(connections, dropped, seconds):
            get_logger().info(line)
        self._dropped, self._now, self._began = dropped, self._new_interval(), now

    def lines(self, connections: Mapping[int, Connection], dropped: Mapping[int, int], seconds: float) -> list[str]:
        """Return the lines about the last `seconds`, for frames `dropped` since the start by source."""
        own, lost = [], []  # line of each source; names of those without connection
        for source in self._sources:
            name, absence = source.record.name, _absence(connections.get(source.record.index))
            own.append(f"{name}: {absence or self._describe([source.record.index], dropped, seconds)}")
            lost += [name] if absence else []
        note = f"; {self._note}" if self._note else ""
        if len(own) == 1:
            return [own[0] + note]
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        note = (f"; no connection to {', '.join(lost[:_NAMED])}{more}" if lost else "") + note
        total = self._describe([source.record.index for source in self._sources], dropped, seconds)
        lines = [f"{len(own)} cameras: {total}{note}"]
        return lines + ([f"  {line}" for line in own] if len(own) <= FEW else [])

    def _describe(self, indices: Sequence[int], dropped: Mapping[int, int], seconds: float) -> str:
        """Describe several sources together, or a single one with its activity and class."""
        parts = [self._now[index] for index in indices]
        frames = sum(part.frames for part in parts)
        lost = sum(dropped.get(index, 0) - self._dropped.get(index, 0) for index in indices)
        text = f"{frames / seconds:.1f} frames/s, {lost} dropped"
        if not frames:
            return text
        latency = LatencyHistogram.total(part.latency for part in parts)
        shown = " ".join(f"p{percent} {1e3 * latency.percentile(percent):.0f}" for percent in (50, 95, 99))
        active = 100 * sum(part.active for part in parts) / (frames * self._patches)
        text += f", latency {shown} ms, {active:.0f} % of patches active"
        [part, *others] = parts
        return text if others or part.prediction is None else f"{text}, {self._names[part.prediction]}"


def _absence(connection: Connection | None) -> str:
    """Describe a source that is disconnected or has ended; "" if it is connected."""
    if connection is None:
        return ""
    seconds = connection.absence  # read once: the thread of the source changes it
    if seconds is None:
        return "ended" if connection.ended else ""
    attempts = f", {connection.attempts} failed attempts" if connection.attempts else ""
    return f"no frame for {seconds:.0f} s{attempts}"
