"""Datasets of event camera recordings.

Notation: L events of a sample, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import EvalDataset, TrainDataset
from slowfast.datasets.collate import PADDING, to_tensors
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import REPAIRS, as_events, repair
from slowfast.datasets.dvs.sample import EventColumns, choose, get_sampler, normalize_time
from slowfast.datasets.dvs.transforms import EventAugment
from slowfast.datasets.order import VIEW, generator
from slowfast.datasets.sampling import NORMAL, REPEATED, SHUFFLED
from slowfast.datasets.types import EvalRecording, Failure, Record
from slowfast.utils.logging import get_logger

SHUFFLE = 1  # stream of the generator for shuffled timestamps


class Repairs:
    """Logs each kind of repair once per run, in whichever worker process it occurs first."""

    def __init__(self) -> None:
        self._logged = torch.zeros(len(REPAIRS), dtype=torch.uint8).share_memory_()

    def log(self, done: Sequence[str], name: str) -> None:
        """Log the kinds of repair that were not logged before."""
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

    @classmethod
    def from_config(cls, cfg: ConfigNode, longest: float) -> EventSampling:
        """Build from the DVS settings and the duration of the longest recording (microseconds)."""
        dvs = cfg.DVS
        return cls(tuple(dvs.SENSOR_SIZE), dvs.NUM_EVENTS, dvs.SAMPLER, dvs.TIME_NORM, longest, dvs.TIME_UNIT)

    def draw(self, record: Record, seeds: Sequence[tuple[int, ...]], repairs: Repairs) -> list[EventColumns]:
        """Draw a sample per seed, with the file opened once.

        Only the chosen events are read, unless some of them show that the recording has to be repaired.

        Args:
            record: Recording to sample from.
            seeds: Seeds of the generators.
            repairs: Log of the repairs.

        Raises:
            DecodeError: If the recording cannot be read.
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
                repairs.log(done, record.name)
            rows = choose(sampler, len(whole), self.events, generator(VIEW, *numbers))
            samples.append(whole.take(rows) if isinstance(rows, np.ndarray) else whole)
        return samples

    def finish(self, events: EventColumns) -> dict[str, np.ndarray]:
        """Normalize and pad events: x, y, p int64, t float32 and valid bool, each (L,), with L at least ``events``."""
        columns = {"x": events.x, "y": events.y, "t": normalize_time(events.t, self.time_norm, self.longest)}
        short = max(self.events - len(events), 0)  # equal length in every batch: T_HEADS splits by length
        padded = {
            key: np.pad(values, (0, short), constant_values=PADDING)
            for key, values in {**columns, "p": events.p}.items()
        }
        return {**padded, "valid": np.arange(len(events) + short) < len(events)}


class RecordingTrainDataset(TrainDataset):
    """Training dataset of augmented samples of recordings."""

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


class RecordingEvalDataset(EvalDataset[EvalRecording]):
    """Evaluation dataset of one or more samples per recording, the same in every test.

    Args:
        records: Recordings.
        sampling: Conversion to samples.
        samples: Number of samples per recording.
        order: ``normal``, ``shuffled`` (timestamps permuted within a sample) or ``repeated`` (all timestamps equal), to
            measure how much a network depends on motion.
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
        samples = [self._reordered(self.sampling.finish(e), s) for e, s in zip(drawn, seeds, strict=True)]
        return EvalRecording(record, [to_tensors(sample) for sample in samples], self.sampling.sensor)

    def _reordered(self, sample: dict[str, np.ndarray], seed: tuple[int, ...]) -> dict[str, np.ndarray]:
        t, n = sample["t"].copy(), int(sample["valid"].sum())
        if self.order == REPEATED:
            t[:n] = t[n // 2]
        elif self.order == SHUFFLED:
            t[:n] = generator(VIEW, *seed, SHUFFLE).permutation(t[:n])
        return {**sample, "t": t}
