"""Datasets of event recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import Reading, TestMedia, TrainMedia
from slowfast.datasets.collate import PADDING, to_tensors
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import REPAIRS, as_events, repair
from slowfast.datasets.dvs.sample import EventColumns, choose, get_sampler, normalize_time
from slowfast.datasets.dvs.transforms import EventAugment
from slowfast.datasets.loader import MediaLoader
from slowfast.datasets.order import VIEW, generator
from slowfast.datasets.sampling import NORMAL, REPEATED, SHUFFLED
from slowfast.datasets.types import Failure, Record, TestRecording
from slowfast.errors import DataError, system_reason
from slowfast.utils.files import write_whole
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.logging import get_logger
from slowfast.utils.machine import usable_cores
from slowfast.utils.private_cache import private_cache

SHUFFLE = 1  # number of the generator of shuffled times


class Repairs:
    """Says once a run what is repaired, whichever worker process meets it first."""

    def __init__(self) -> None:
        self._said = torch.zeros(len(REPAIRS), dtype=torch.uint8).share_memory_()

    def say(self, done: Sequence[str], name: str) -> None:
        """Log those kinds of repair that were not met before."""
        for repair_done in done:
            place = REPAIRS.index(repair_done)
            if not self._said[place]:
                self._said[place] = 1
                get_logger().warning(f"{name}: {repair_done}; and so, without a word, in other recordings")


@dataclass(frozen=True)
class EventSampling:
    """How recordings become samples for a network."""

    sensor: tuple[int, int]  # height, width
    events: int  # of a sample; 0: all
    sampler: str
    time_norm: str
    longest: float  # microseconds
    time_unit: float  # seconds

    @classmethod
    def from_config(cls, cfg: ConfigNode, longest: float) -> EventSampling:
        """As DVS says, with the data set's longest recording (microseconds)."""
        dvs = cfg.DVS
        return cls(tuple(dvs.SENSOR_SIZE), dvs.NUM_EVENTS, dvs.SAMPLER, dvs.TIME_NORM, longest, dvs.TIME_UNIT)

    def draw(self, record: Record, seeds: Sequence[tuple[int, ...]], repairs: Repairs) -> list[EventColumns]:
        """A sample for each seed (numbers of a generator of VIEW), the file opened once.

        Only the chosen events are read, unless some of them show that the recording has to be repaired. Raises
        DecodeError.
        """
        sampler, recording = get_sampler(self.sampler), Recording(record.path)
        whole: EventColumns | None = None
        samples = []
        for numbers in seeds:
            if whole is None:
                rows = choose(sampler, recording.n, self.events, generator(VIEW, *numbers))
                events = as_events(recording.take(rows), self.sensor, self.time_unit)
                if events is not None:
                    samples.append(events)
                    continue
                whole, done = repair(recording.take(slice(None)), self.sensor, self.time_unit)
                repairs.say(done, record.name)
            rows = choose(sampler, len(whole), self.events, generator(VIEW, *numbers))
            samples.append(whole.take(rows) if isinstance(rows, np.ndarray) else whole)
        return samples

    def finish(self, events: EventColumns) -> dict[str, np.ndarray]:
        """As a network gets them: x, y, p int64, t float32 and valid bool, each (L,), L at least `events`."""
        columns = {"x": events.x, "y": events.y, "t": normalize_time(events.t, self.time_norm, self.longest)}
        short = max(self.events - len(events), 0)  # as long in every batch: T_HEADS cuts by length
        padded = {
            key: np.pad(values, (0, short), constant_values=PADDING)
            for key, values in {**columns, "p": events.p}.items()
        }
        return {**padded, "valid": np.arange(len(events) + short) < len(events)}


class TrainRecordings(TrainMedia):
    """Augmented samples of each recording."""

    def __init__(
        self,
        records: Sequence[Record],
        sampling: EventSampling,
        augment: EventAugment | None = None,
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
        repeated: int = 1,
    ) -> None:
        super().__init__(records, samples, seed, max_failed, balanced, repeated)
        self.sampling, self.augment, self.repairs = sampling, augment, Repairs()

    def _read(self, record: Record, epoch: int, draw: int) -> tuple[list[dict[str, np.ndarray]], str | None]:
        seeds = [(self.seed, epoch, draw, sample) for sample in range(self.samples)]
        drawn = self.sampling.draw(record, seeds, self.repairs)
        if self.augment is not None:
            augment = self.augment
            drawn = [augment(events, generator(VIEW, *seed, 1)) for events, seed in zip(drawn, seeds, strict=True)]
        return [self.sampling.finish(events) for events in drawn], None


class TestRecordings(TestMedia[TestRecording]):
    """Several samples of each recording, the same in every test.

    order: normal; shuffled (the times exchanged among a sample's events) or repeated (all at the middle event's time),
    to show what a network owes to motion.
    """

    __test__ = False  # not a pytest class

    def __init__(
        self,
        records: Sequence[Record],
        sampling: EventSampling,
        samples: int = 1,
        order: str = NORMAL,
        seed: int = 0,
    ) -> None:
        super().__init__(records, seed)
        self.sampling, self.samples, self.order, self.repairs = sampling, samples, order, Repairs()

    def _failed(self, record: Record, failure: Failure) -> TestRecording:
        return TestRecording(record, [], self.sampling.sensor, [failure])

    def _read(self, record: Record) -> TestRecording:
        seeds = [(self.seed, record.index, sample) for sample in range(self.samples)]
        drawn = self.sampling.draw(record, seeds, self.repairs)
        samples = [self._reordered(self.sampling.finish(e), s) for e, s in zip(drawn, seeds, strict=True)]
        return TestRecording(record, [to_tensors(sample) for sample in samples], self.sampling.sensor)

    def _reordered(self, sample: dict[str, np.ndarray], seed: tuple[int, ...]) -> dict[str, np.ndarray]:
        t, n = sample["t"].copy(), int(sample["valid"].sum())
        if self.order == REPEATED:
            t[:n] = t[n // 2]
        elif self.order == SHUFFLED:
            t[:n] = generator(VIEW, *seed, SHUFFLE).permutation(t[:n])
        return {**sample, "t": t}


_TOGETHER = 32  # recordings of one task of a worker


def longest_recording(
    records: Sequence[Record], sensor: tuple[int, int], time_unit: float, timeout: float = 0.0
) -> float:
    """Return the longest time (microseconds) from first to last event, of the recordings that can be read.

    Args:
        records: Recordings of the training set.
        sensor: Height and width in pixels.
        time_unit: Seconds of one unit of the files' times.
        timeout: Seconds that one recording may take; 0 sets no limit.

    Raises:
        DataError: If none can be read, or all have one instant only.
    """
    cache = private_cache(f"longest_{_digest(records, sensor, time_unit)}.json")
    known = _read(cache)
    if known is not None:
        return known
    get_logger().info(f"looking for the longest of {len(records)} recordings; DVS.LONGEST would save this")
    with _Durations(_Recordings(records, sensor, time_unit), timeout) as durations:
        longest = max(durations, default=0.0)
    if longest <= 0:
        raise DataError("no training recording can be read and has a duration; set DVS.TIME_NORM none, or mend them")
    get_logger().info(f"the longest recording has {longest:.0f} microseconds; kept in {cache}")
    try:
        write_whole(cache, to_json({"microseconds": longest, "recordings": len(records)}) + "\n")
    except OSError as error:
        get_logger().warning(f"{cache} cannot be written ({system_reason(error)}): it will be looked for again")
    return longest


class _Recordings(Reading):
    """Recordings of which only the duration is read."""

    def __init__(self, records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> None:
        super().__init__(records)
        self.sensor, self.time_unit = sensor, time_unit

    def longest(self, first: int) -> float:
        """Return the longest duration of _TOGETHER recordings, microseconds."""
        return max(self._duration(place) for place in range(first, min(first + _TOGETHER, len(self))))

    def _duration(self, place: int) -> float:
        """Return 0 for one that cannot be read: it is listed as failed when its turn comes."""
        found = self.attempt(place, lambda record: duration(record.path, self.sensor, self.time_unit))
        return 0.0 if isinstance(found, Failure) else found


class _Durations(MediaLoader[int, float]):
    """Loader of the longest durations of some recordings each."""

    def __init__(self, recordings: _Recordings, timeout: float) -> None:
        super().__init__(recordings, _Recordings.longest, usable_cores(), timeout, prefetch=2, pin=False)

    def tasks(self) -> Iterable[int]:
        """Return the place of the first recording of each task."""
        return range(0, len(self.dataset), _TOGETHER)


def duration(path: Path, sensor: tuple[int, int], time_unit: float) -> float:
    """Return the microseconds from the first to the last event. Raises DecodeError."""
    recording = Recording(path)
    ends = as_events(recording.take(np.array([0, -1])), sensor, time_unit)
    if ends is None:
        ends, _ = repair(recording.take(slice(None)), sensor, time_unit)
    return float(ends.t[-1] - ends.t[0]) if len(ends) else 0.0


def _digest(records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> str:
    """Of the files' places, sizes and dates, and how they are read."""
    text = hashlib.sha256(repr((sensor, time_unit)).encode())
    for record in records:
        try:
            state = record.path.stat()
            text.update(
                f"{record.path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        except OSError:
            text.update(f"{record.path.absolute()}\0missing\n".encode(errors="surrogateescape"))
    return text.hexdigest()[:24]


def _read(cache: Path) -> float | None:
    try:
        value = from_json(cache.read_text(encoding="utf-8"))["microseconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or a damaged one: it is made anew
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
