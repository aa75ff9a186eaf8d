"""Status of cameras and streams while they are processed: throughput, dropped frames and latency, in log lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from slowfast.event_driven.activity import FrameActivity, VideoActivity
from slowfast.event_driven.connection import Connection
from slowfast.event_driven.latency import LatencyHistogram
from slowfast.event_driven.sources import Source
from slowfast.utils.logging import get_logger

INTERVAL = 10.0  # seconds between the lines
FEW = 8  # maximum number of sources with individual lines
_NAMED = 5  # disconnected sources named in the summary line


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
