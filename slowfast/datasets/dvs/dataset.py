"""Datasets of event camera recordings.

Notation: L events of a sample, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import EvalDataset, TrainDataset
from slowfast.datasets.dvs.augment import BatchAugment, EventAugment
from slowfast.datasets.dvs.recording import REPAIRS, Opening, Recording, as_events, read_clusters, repair
from slowfast.datasets.dvs.sample import EventColumns, Sampler, choose, get_sampler, normalize_time, random_part
from slowfast.datasets.loader import PADDING, to_tensors
from slowfast.datasets.sampling import NORMAL, REPEATED, VIEW, Key, generator
from slowfast.datasets.types import EvalRecording, Failure, Record, TrainSample
from slowfast.utils.logging import get_logger

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

    opening: Opening
    events: int  # number of events per sample; 0 for all
    sampler: str
    time_norm: str
    longest: float  # duration of the longest recording in microseconds
    clusters: bool = False  # whether the files contain clusters of events; all clusters are used

    @classmethod
    def from_config(cls, cfg: ConfigNode, longest: float) -> EventSampling:
        """Build from the DVS settings and the duration of the longest recording (microseconds)."""
        dvs = cfg.DVS
        return cls(Opening.from_config(cfg), dvs.NUM_EVENTS, dvs.SAMPLER, dvs.TIME_NORM, longest, dvs.CLUSTERS)

    @property
    def sensor(self) -> tuple[int, int]:
        """Height and width of the sensor in pixels."""
        return self.opening.sensor

    def draw(
        self, record: Record, seeds: Sequence[tuple[int, ...]], repairs: Repairs, sampler: Sampler | None = None
    ) -> list[EventColumns]:
        """Draw one sample per seed, opening the file once.

        Only the chosen events are read, unless some of them show that the recording has to be repaired.

        Args:
            record: Recording to sample from.
            seeds: Seeds of the generators.
            repairs: Log of the repairs.
            sampler: Selection of the events; None for DVS.SAMPLER.

        Raises:
            DecodeError: If the recording cannot be read.
        """
        with self.opening.files.local(record.path, suffix=True) as path:
            if self.clusters:
                return [read_clusters(path, self.sensor)] * len(seeds)
            sampler = sampler or get_sampler(self.sampler)
            return self._draw(Recording(path, self.opening.stream), record.name, seeds, repairs, sampler)

    def _draw(
        self, recording: Recording, name: str, seeds: Sequence[tuple[int, ...]], repairs: Repairs, sampler: Sampler
    ) -> list[EventColumns]:
        time_unit = recording.time_unit(self.opening.time_unit)
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
        seeds = self._seeds(epoch, draw)
        drawn = self._draw(record, epoch, draw, seeds)
        return [self._augmented(events, epoch, seed) for events, seed in zip(drawn, seeds, strict=True)], None

    def _seeds(self, epoch: int, draw: int) -> list[tuple[int, ...]]:
        """Return the seeds of the samples of a draw."""
        return [(self.seed, epoch, draw, sample) for sample in range(self.samples)]

    def _draw(self, record: Record, epoch: int, draw: int, seeds: Sequence[tuple[int, ...]]) -> list[EventColumns]:
        """Draw the events of the samples."""
        return self.sampling.draw(record, seeds, self.repairs)

    def _augmented(self, events: EventColumns, epoch: int, seed: tuple[int, ...]) -> dict[str, np.ndarray]:
        if self.augment is None:
            return self.sampling.finish(events)
        rng = generator(VIEW, *seed, 1)
        if isinstance(self.augment, EventAugment):
            return self.sampling.finish(self.augment(events, rng))
        return self.sampling.finish(*self.augment(events, generator(VIEW, self.seed, epoch, self._step, 0, 2), rng))


class AllEventsTrainDataset(RecordingTrainDataset):
    """Training dataset whose epochs cover all events of every recording (DVS.ALL_EVENTS).

    A recording of n events counts as ceil(n / k) samples of k = DVS.NUM_EVENTS events. In each epoch, they divide a new
    random permutation of the events; the last sample is filled up with events of the one before.

    Args:
        records: Recordings.
        sampling: Conversion to samples; DVS.SAMPLER does not apply.
        counts: Number of events of each recording, int64; 0 if unknown.
        others: Arguments of `RecordingTrainDataset`.
    """

    def __init__(self, records: Sequence[Record], sampling: EventSampling, counts: np.ndarray, **others: Any) -> None:
        sizes = np.maximum(-(-counts // sampling.events), 1)  # samples of each recording
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        numbers = np.arange(len(first)) - first
        recordings = np.repeat(np.arange(len(records)), sizes)
        super().__init__([replace(records[r], index=i) for i, r in enumerate(recordings.tolist())], sampling, **others)
        self._numbers = numbers  # number of each sample within its recording, int64

    def _draw(self, record: Record, epoch: int, draw: int, seeds: Sequence[tuple[int, ...]]) -> list[EventColumns]:
        number = int(self._numbers[draw % len(self)])
        same_for_the_recording = self._seeds(epoch, draw - number)
        return self.sampling.draw(record, same_for_the_recording, self.repairs, partial(random_part, part=number))


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
