"""Datasets of event camera recordings.

Notation: L events of a sample, padded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import EvalDataset, RecordDataset, TrainDataset
from slowfast.datasets.dvs.augment import BatchAugment, EventAugment
from slowfast.datasets.dvs.recording import REPAIRS, Recording, as_events, read_clusters, repair
from slowfast.datasets.dvs.sample import EventColumns, choose, get_sampler, normalize_time
from slowfast.datasets.loader import PADDING, SampleLoader, to_tensors
from slowfast.datasets.sample_files import SampleFiles, find_member
from slowfast.datasets.sampling import NORMAL, REPEATED, VIEW, Key, generator
from slowfast.datasets.types import EvalRecording, Failure, Record, TrainSample
from slowfast.errors import DataError, system_reason
from slowfast.utils.cpu import usable_cores
from slowfast.utils.files import atomic_write_text
from slowfast.utils.logging import get_logger
from slowfast.utils.private_cache import private_cache
from slowfast.utils.text_files import from_json, to_json

_RECORDINGS_PER_TASK = 32  # recordings per task of a worker process


def longest_recording(
    records: Sequence[Record],
    sensor: tuple[int, int],
    time_unit: float,
    timeout: float = 0.0,
    files: SampleFiles | None = None,
    stream: str = "",
) -> float:
    """Return the duration of the longest readable recording in microseconds, cached across runs.

    Args:
        records: Recordings of the training set.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.
        timeout: Time limit per recording in seconds; 0 for none.
        files: Access to the recordings; by default without a cache for remote ones.
        stream: Name of the stream, for files with several streams.

    Raises:
        DataError: If no recording can be read, or all have a duration of 0.
    """
    cache = private_cache(f"longest_{_digest(records, sensor, time_unit, stream)}.json")
    known = _read(cache)
    if known is not None:
        return known
    get_logger().info(f"Measuring the longest of {len(records)} recordings; set DVS.LONGEST to skip this")
    recordings = _Recordings(records, sensor, time_unit, files or SampleFiles(0), stream)
    with _Durations(recordings, timeout) as durations:
        longest = max(durations, default=0.0)
    if longest <= 0:
        raise DataError(
            "no readable training recording has a duration above 0. Set DVS.TIME_NORM to none or fix the recordings"
        )
    get_logger().info(f"Duration of the longest recording: {longest:.0f} microseconds, cached in {cache}")
    try:
        atomic_write_text(cache, to_json({"microseconds": longest, "recordings": len(records)}) + "\n")
    except OSError as error:
        get_logger().warning(f"{cache} cannot be written ({system_reason(error)}); the next run will measure again")
    return longest


class _Recordings(RecordDataset):
    """Dataset of the durations of recordings."""

    def __init__(
        self, records: Sequence[Record], sensor: tuple[int, int], time_unit: float, files: SampleFiles, stream: str
    ) -> None:
        super().__init__(records)
        self.sensor, self.time_unit, self.files, self.stream = sensor, time_unit, files, stream

    def longest(self, first: int) -> float:
        """Return the longest duration of _RECORDINGS_PER_TASK recordings in microseconds."""
        return max(self._duration(index) for index in range(first, min(first + _RECORDINGS_PER_TASK, len(self))))

    def _duration(self, index: int) -> float:
        """Return the duration of a recording; 0 if it cannot be read, which is reported when it is loaded."""
        found = self.attempt(index, self._measure)
        return 0.0 if isinstance(found, Failure) else found

    def _measure(self, record: Record) -> float:
        with self.files.local(record.path, suffix=True) as path:
            return duration(path, self.sensor, self.time_unit, self.stream)


class _Durations(SampleLoader[int, float]):
    """Loader of the longest duration of each group of recordings."""

    def __init__(self, recordings: _Recordings, timeout: float) -> None:
        super().__init__(recordings, _Recordings.longest, usable_cores(), timeout, prefetch=2, pin=False)

    def tasks(self) -> Iterable[int]:
        """Return the index of the first recording of each task."""
        return range(0, len(self.dataset), _RECORDINGS_PER_TASK)


def duration(path: Path, sensor: tuple[int, int], time_unit: float, stream: str = "") -> float:
    """Return the time from the first to the last event in microseconds.

    Raises:
        DecodeError: If the recording cannot be read.
    """
    recording = Recording(path, stream)
    time_unit = recording.time_unit(time_unit)
    ends = as_events(recording.take(np.array([0, -1])), sensor, time_unit)
    if ends is None:
        ends, _ = repair(recording.take(slice(None)), sensor, time_unit)
    return float(ends.t[-1] - ends.t[0]) if len(ends) else 0.0


def _digest(records: Sequence[Record], sensor: tuple[int, int], time_unit: float, stream: str) -> str:
    """Hash the paths, sizes and modification times of the files and the settings with which they are read."""
    text = hashlib.sha256(repr((sensor, time_unit, stream)).encode())
    for record in records:
        try:
            member = find_member(str(record.path))
            state = (record.path if member is None else Path(member.shard)).stat()
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
        return None  # the cache is missing or damaged: measure again
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


SHUFFLE = 1  # stream of the generator for shuffled timestamps


class Repairs:
    """Log of repairs: each kind is logged once per run, by the first worker process in which it occurs."""

    def __init__(self) -> None:
        self._logged = torch.zeros(len(REPAIRS), dtype=torch.uint8).share_memory_()

    def log(self, done: Sequence[str], name: str) -> None:
        """Log kinds of repair that have not been logged yet."""
        for repair_done in done:
            kind = REPAIRS.index(repair_done)
            if not self._logged[kind]:
                self._logged[kind] = 1
                get_logger().warning(f"{name}: {repair_done}. Repairs of this kind are logged once only")


@dataclass(frozen=True)
class EventSampling:
    """Conversion of recordings to samples for a network."""

    sensor: tuple[int, int]  # height and width in pixels
    events: int  # number of events per sample; 0 for all
    sampler: str
    time_norm: str
    longest: float  # duration of the longest recording in microseconds
    time_unit: float  # seconds per timestamp tick
    clusters: bool = False  # whether the files contain clusters of events; all clusters are used
    files: SampleFiles = field(default_factory=partial(SampleFiles, 0), compare=False)  # access to the recordings
    stream: str = ""  # name of the stream, for files with several streams

    @classmethod
    def from_config(cls, cfg: ConfigNode, longest: float) -> EventSampling:
        """Build from the DVS settings and the duration of the longest recording (microseconds)."""
        dvs = cfg.DVS
        norm, unit = dvs.TIME_NORM, dvs.TIME_UNIT
        sensor, files = (dvs.SENSOR_SIZE[0], dvs.SENSOR_SIZE[1]), SampleFiles.from_config(cfg)
        return cls(sensor, dvs.NUM_EVENTS, dvs.SAMPLER, norm, longest, unit, dvs.CLUSTERS, files, dvs.STREAM)

    def draw(self, record: Record, seeds: Sequence[tuple[int, ...]], repairs: Repairs) -> list[EventColumns]:
        """Draw one sample per seed, opening the file once.

        Only the chosen events are read, unless some of them show that the recording has to be repaired.

        Args:
            record: Recording to sample from.
            seeds: Seeds of the generators.
            repairs: Log of the repairs.

        Raises:
            DecodeError: If the recording cannot be read.
        """
        with self.files.local(record.path, suffix=True) as path:
            if self.clusters:
                return [read_clusters(path, self.sensor)] * len(seeds)
            return self._draw(Recording(path, self.stream), record.name, seeds, repairs)

    def _draw(
        self, recording: Recording, name: str, seeds: Sequence[tuple[int, ...]], repairs: Repairs
    ) -> list[EventColumns]:
        sampler = get_sampler(self.sampler)
        time_unit = recording.time_unit(self.time_unit)
        whole: EventColumns | None = None
        samples = []
        for numbers in seeds:
            if whole is None:
                rows = choose(sampler, recording.n, self.events, generator(VIEW, *numbers))
                events = as_events(recording.take(rows), self.sensor, time_unit)
                if events is not None:
                    samples.append(events)
                    continue
                whole, done = repair(recording.take(slice(None)), self.sensor, time_unit)
                repairs.log(done, name)
            rows = choose(sampler, len(whole), self.events, generator(VIEW, *numbers))
            samples.append(whole.take(rows) if isinstance(rows, np.ndarray) else whole)
        return samples

    def finish(self, events: EventColumns, valid: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Normalize and pad events: x, y, p int64, t float32 and valid bool, each (L,), with L at least ``events``.

        Clusters have intensity, too, float32; their coordinates are rounded to pixels, as published.

        Args:
            events: Events of the sample.
            valid: Validity of the events, bool; None if all are valid.
        """
        x, y = (np.rint(values).astype(np.int64) for values in (events.x, events.y))
        columns = {"x": x, "y": y, "t": normalize_time(events.t, self.time_norm, self.longest)}
        if events.intensity is not None:
            columns["intensity"] = events.intensity.astype(np.float32)
        short = max(self.events - len(events), 0)  # T_HEADS needs equal lengths in all batches
        padded = {
            key: np.pad(values, (0, short), constant_values=PADDING)
            for key, values in {**columns, "p": events.p}.items()
        }
        return {**padded, "valid": np.pad(np.ones(len(events), bool) if valid is None else valid, (0, short))}


class RecordingTrainDataset(TrainDataset):
    """Training dataset of augmented samples of recordings.

    Args:
        augment: Augmentation; None for none.
        batch_size: Recordings per batch, for augmentation by whole batches.
        others: Arguments of `TrainDataset`, and the conversion to samples.
    """

    def __init__(
        self,
        records: Sequence[Record],
        sampling: EventSampling,
        augment: EventAugment | BatchAugment | None = None,
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
        repeated: int = 1,
        batch_size: int = 1,
    ) -> None:
        super().__init__(records, samples, seed, max_failed, balanced, repeated)
        self.sampling, self.augment, self.repairs = sampling, augment, Repairs()
        self.batch_size, self._step = batch_size, 0

    def __getitem__(self, key: Key) -> TrainSample:
        self._step = key[1] // self.batch_size  # the replacement of an unreadable recording belongs to the same batch
        return super().__getitem__(key)

    def _read(self, record: Record, epoch: int, draw: int) -> tuple[list[dict[str, np.ndarray]], str | None]:
        seeds = [(self.seed, epoch, draw, sample) for sample in range(self.samples)]
        drawn = self.sampling.draw(record, seeds, self.repairs)
        return [self._augmented(events, epoch, seed) for events, seed in zip(drawn, seeds, strict=True)], None

    def _augmented(self, events: EventColumns, epoch: int, seed: tuple[int, ...]) -> dict[str, np.ndarray]:
        if self.augment is None:
            return self.sampling.finish(events)
        rng = generator(VIEW, *seed, 1)
        if isinstance(self.augment, EventAugment):
            return self.sampling.finish(self.augment(events, rng))
        return self.sampling.finish(*self.augment(events, generator(VIEW, self.seed, epoch, self._step, 0, 2), rng))


class RecordingEvalDataset(EvalDataset[EvalRecording]):
    """Evaluation dataset of one or more samples per recording, the same in every test.

    Args:
        records: Recordings.
        sampling: Conversion to samples.
        samples: Number of samples per recording.
        order: ``normal``, ``shuffled`` (timestamps exchanged between the events of a sample) or ``repeated`` (all
            timestamps equal, events in random order), to measure how much a network depends on motion.
        seed: Seed of the samples.
    """

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

    def _failed(self, record: Record, failure: Failure) -> EvalRecording:
        return EvalRecording(record, [], self.sampling.sensor, [failure])

    def _read(self, record: Record) -> EvalRecording:
        seeds = [(self.seed, record.index, sample) for sample in range(self.samples)]
        drawn = self.sampling.draw(record, seeds, self.repairs)
        samples = [self.reordered(self.sampling.finish(e), s) for e, s in zip(drawn, seeds, strict=True)]
        return EvalRecording(record, [to_tensors(sample) for sample in samples], self.sampling.sensor)

    def reordered(self, sample: dict[str, np.ndarray], seed: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return a sample with its events in the order of the dataset."""
        if self.order == NORMAL:
            return sample
        n = int(sample["valid"].sum())
        # Networks may use the order of the events as well as their times: events are moved, times stay ascending.
        places = generator(VIEW, *seed, SHUFFLE).permutation(n)
        moved = {key: values.copy() for key, values in sample.items()}
        for key in moved.keys() - {"t", "valid"}:
            moved[key][:n][places] = sample[key][:n]
        if self.order == REPEATED:
            moved["t"][:n] = sample["t"][n // 2]
        return moved
