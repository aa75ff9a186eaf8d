"""Fuzzed event recordings, in the formats of conversions and cameras and in those of public datasets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import EventBlock
from slowfast.datasets.dvs.recording import Recording, clean_events, repair
from tests import raw_recordings
from tests.fuzz.mutate import BINARY, truncate
from tests.fuzz.protocol import REFUSED, USED, WrongValue
from tests.ros_bags import Bag


class Recordings:
    """Event recordings, prepared and raw: all events lie on the sensor, in order of time."""

    mutations = BINARY
    SENSOR = (240, 320)

    def make(self, folder: Path) -> list[Path]:
        """Write the same events in each format."""
        events = raw_recordings.some_events(400)
        x, y, t, p = (np.array(column) for column in zip(*events, strict=True))
        columns = {"x": x.astype(np.int16), "y": y.astype(np.int16), "t": t, "p": p.astype(np.int8)}
        np.savez(folder / "plain.npz", **columns)
        np.savez_compressed(folder / "compressed.npz", **columns)
        table = np.zeros(len(x), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")])
        for name, column in columns.items():
            table[name] = column
        np.save(folder / "table.npy", table)
        writers: dict[str, Callable[[list], bytes]] = {
            "events.dat": raw_recordings.dat,
            "evt2.raw": raw_recordings.evt2,
            "evt21.raw": raw_recordings.evt21,
            "evt3.raw": raw_recordings.evt3,
            "events.aedat": raw_recordings.aedat,
            "events.aedat4": lambda events: raw_recordings.aedat4([events]),
        }
        for name, write in writers.items():
            (folder / name).write_bytes(write(events))
        return sorted(folder.iterdir())

    def check(self, path: Path, original: Path) -> str:
        """Read it as training or as the conversion does."""
        try:
            if path.suffix in (".npz", ".npy"):
                events, _ = repair(Recording(path).take(slice(None)), self.SENSOR, 1e-6)
                found = [events]
            else:
                found = [stream.events for stream in raw_recordings.read(path)]
        except DecodeError:
            return REFUSED
        for events in found:
            columns = [np.asarray(column) for column in (events.x, events.y, events.t, events.p)]
            if len({len(column) for column in columns}) != 1:
                raise WrongValue("columns of several lengths")
            if path.suffix in (".npz", ".npy") and len(columns[0]):
                off = (columns[0].min() < 0) | (columns[0].max() >= self.SENSOR[1])
                off |= (columns[1].min() < 0) | (columns[1].max() >= self.SENSOR[0])
                if off or (np.diff(columns[2]) < 0).any():
                    raise WrongValue("events off the sensor or out of order")
        return USED


class EventFormats:
    """Recordings of public datasets and other packages: consistent events, the same in every way of reading.

    A truncated file gives the first of its events or is refused.
    """

    mutations = BINARY
    EVENTS = raw_recordings.some_events(300, longest=900_000, width=128, height=100)
    SENSOR = (480, 640)

    def make(self, folder: Path) -> list[Path]:
        """Write the same events in each layout."""
        self._binary(folder)
        self._text(folder)
        self._arrays(folder)
        self._hdf5(folder)
        self._bags(folder)
        return sorted(folder.iterdir())

    def _binary(self, folder: Path) -> None:
        events = self.EVENTS
        dvs128 = [(x << 8 | y << 1 | p, t) for x, y, t, p in events]
        camera = "# AEChip: eu.seebetter.ini.chips.davis.Davis346blue\r\n"
        legacy = b"% evt 2.1\n% format EVT21;height=240;width=320;endianness=legacy\n"
        files = {
            "nmnist.bin": raw_recordings.nmnist(events),
            "dvs128.aedat": raw_recordings.aedat2(dvs128),
            "version1.aedat": raw_recordings.aedat2(dvs128, version=1),
            "davis.aedat": raw_recordings.aedat2(raw_recordings.davis(events, 346, 260), camera),
            "version1.dat": raw_recordings.dat(events, version=1),
            "legacy.raw": raw_recordings.evt21(events, legacy),
            "dvs.es": raw_recordings.event_stream(events, 100),
            "atis.es": raw_recordings.event_stream(events, 100, kind=2),
        }
        for name, data in files.items():
            (folder / name).write_bytes(data)

    def _text(self, folder: Path) -> None:
        lines = [f"{t},{x},{y},{p}" for x, y, t, p in self.EVENTS]
        (folder / "named.csv").write_text("\n".join(["t,x,y,p", *lines, ""]))
        seconds = [f"{t * 1e-6:.6f} {x} {y} {p}" for x, y, t, p in self.EVENTS]
        (folder / "rpg.txt").write_text("\n".join(["128 100", *seconds, ""]))

    def _arrays(self, folder: Path) -> None:
        x, y, t, p = np.array(self.EVENTS).T
        np.save(folder / "txyp.npy", np.stack((t, x, y, p), 1))
        np.save(folder / "tonic.npy", np.stack((x, y, p, t / 1000), 1))
        np.savez_compressed(folder / "table.npz", np.stack((x, y, t, p), 1))
        parts = {
            name: np.stack((x, y, t * 9 // 10**6), 1)[p == on].astype("u1") for name, on in (("pos", 1), ("neg", 0))
        }
        np.savez(folder / "es_imagenet.npz", **parts)
        savemat(folder / "asl.mat", {"x": x, "y": y, "ts": t, "pol": p}, do_compression=True)
        savemat(folder / "td.mat", {"TD": {"x": x + 1, "y": y + 1, "ts": t, "p": p + 1}})
        taxels = np.zeros((101, 60))
        taxels[100], taxels[np.arange(60) * 7 % 100, np.arange(60)] = np.arange(60) * 1e-3, 1
        savemat(folder / "st_mnist.mat", {"spiketrain": taxels})

    def _hdf5(self, folder: Path) -> None:
        columns = dict(zip("xytp", np.array(self.EVENTS).T, strict=True))
        record = np.zeros(len(self.EVENTS), [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
        for key, values in columns.items():
            record[key] = values
        with h5py.File(folder / "dsec.h5", "w") as file:
            for key, values in columns.items():
                file.create_dataset(f"events/{key}", data=values.astype("u4"), chunks=(64,), compression="gzip")
            file["t_offset"], file["ms_to_idx"] = 49_000_000, np.zeros(9, np.int64)
        with h5py.File(folder / "metavision.hdf5", "w") as file:
            file.create_dataset("CD/events", data=record, chunks=(100,))
            file.attrs["geometry"] = "1280x720"
        table = np.stack([columns["x"], columns["y"], 1.5e9 + columns["t"] * 1e-6, 2 * columns["p"] - 1], 1)
        with h5py.File(folder / "mvsec.hdf5", "w") as file:
            file["davis/left/events"], file["davis/right/events"] = table, table[:50]
        with h5py.File(folder / "shd.h5", "w") as file:
            for name, kind in (("times", np.float16), ("units", np.uint16)):
                spikes = file.create_dataset(f"spikes/{name}", (2,), h5py.vlen_dtype(kind))
                for number in range(2):
                    spikes[number] = (np.arange(20) * (0.01 if name == "times" else 30)).astype(kind)
            file["labels"] = [7, 19]

    def _bags(self, folder: Path) -> None:
        for ros, suffix in ((1, ".bag"), (2, ".db3"), (2, ".mcap")):
            bag = Bag(ros, folder / f"ros{suffix}")
            arrays = [bag.array(self.EVENTS[first : first + 100]) for first in range(0, 300, 100)]
            file = bag.write({"/dvs/events": arrays})
            if ros == 2:  # the writer makes a folder of the file and its description
                shutil.move(file, folder)
                shutil.rmtree(file.parent)

    def check(self, path: Path, original: Path) -> str:
        """Read it as the conversion does and as training does."""
        found: list[EventBlock] = []
        try:
            found = [stream.events for stream in raw_recordings.read(path)]
        except DecodeError:
            pass
        for events in found:
            _check_block(events)
        if found and f"_{truncate.__name__}_" in path.name:
            self._check_first(found, original)
        return USED if self._check_training(path) or found else REFUSED

    def _check_first(self, found: list[EventBlock], original: Path) -> None:
        """Raise WrongValue unless the events are the first ones of each stream of the original."""
        for events, stream in zip(found, raw_recordings.read(original), strict=False):
            # A number at the end of a text may have lost its last digits.
            count = len(events.t) - (original.suffix in (".csv", ".txt"))
            for key in "txyp":
                if not np.array_equal(getattr(events, key)[:count], getattr(stream.events, key)[: max(count, 0)]):
                    raise WrongValue(f"{key} of a truncated file differs")

    def _check_training(self, path: Path) -> bool:
        """Return whether training can read the file; raise WrongValue if it gets impossible events."""
        try:
            recording = Recording(path)
            raw = recording.take(slice(None))
            rows = np.array([0, recording.n // 2, -1])
            single = recording.take(rows)
            events, _ = clean_events(raw, self.SENSOR, recording.time_unit(1e-6))
        except DecodeError:
            return False
        if any(not np.array_equal(single[key], raw[key][rows], equal_nan=raw[key].dtype.kind == "f") for key in "xytp"):
            raise WrongValue("events differ when they are read alone")
        outside = (events.x < 0) | (events.x >= self.SENSOR[1]) | (events.y < 0) | (events.y >= self.SENSOR[0])
        if outside.any() or (np.diff(events.t) < 0).any() or not np.isin(events.p, (0, 1)).all():
            raise WrongValue("events off the sensor, out of order or of no polarity")
        return True


def _check_block(events: EventBlock) -> None:
    """Raise WrongValue if columns are inconsistent."""
    if len({len(column) for column in events}) != 1:
        raise WrongValue("columns of several lengths")
    if events.x.dtype.kind not in "iu" or events.y.dtype.kind not in "iu" or not np.isfinite(events.t).all():
        raise WrongValue("coordinates or times of a wrong kind")
    if not np.isin(events.p, (0, 1)).all():
        raise WrongValue("polarities other than 0 and 1")
