"""Formats of event recordings, against files encoded by the tests."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.dataset import EventSampling, Repairs, duration
from slowfast.datasets.dvs.formats import EVENT_READER_REGISTRY, EventBlock, EventReader, open_events, read_stream
from slowfast.datasets.dvs.formats.blocks import TimeUnwrapper
from slowfast.datasets.dvs.frames import EventFramesReader
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.types import Record
from tests.raw_recordings import Event, aedat2, aedat4, davis, event_stream, nmnist, read, rows, some_events

EVENTS = some_events(300, width=34, height=30)
LONG = some_events(300, longest=2_000_000, width=128, height=128)
COLUMNS = dict(zip("xytp", np.array(EVENTS).T, strict=True))


def events_of(path: Path) -> list[Event]:
    """Read the events, as training does and in blocks, which must agree."""
    reader = open_events(path)
    tick = 1.0 if reader.time_unit is None else reader.time_unit / 1e-6
    (stream,) = read(path)
    found = rows({**stream.events._asdict(), "t": stream.events.t * tick})
    recording = Recording(path)
    taken = recording.take(slice(None))
    picked = recording.take(np.array([5, 299, 17]))
    assert [int(t) for t in taken["t"]] == [int(t) for t in stream.events.t]
    for key in "xyt":
        assert np.array_equal(picked[key], taken[key][[5, 299, 17]]), key
    assert [(int(x), int(y)) for x, y in zip(taken["x"], taken["y"], strict=True)] == [e[:2] for e in found]
    return found


class TestNMnist:
    def test_events(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(nmnist(LONG))
        assert events_of(tmp_path / "a.bin") == LONG

    def test_overflow_events_add_time(self, tmp_path: Path) -> None:
        before = [(9, 9, t, 1) for t in range(40, 60)]
        data = nmnist([*before, (1, 2, 100, 1), (0, 240, 8191, 0), (3, 4, 50, 0), (0, 240, 60, 0), (5, 6, 7, 1)])
        (tmp_path / "a.bin").write_bytes(data + b"\1\2")
        (stream,) = read(tmp_path / "a.bin")
        assert rows(stream.events) == [*before, (1, 2, 100, 1), (3, 4, 50 + 8192, 0), (5, 6, 7 + 16384, 1)]
        assert stream.damage == "truncated: the file ends within an event, after 2 of 5 bytes"

    def test_other_files_of_this_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(5000))
        with pytest.raises(DecodeError, match="not a file of N-MNIST"):
            read(tmp_path / "a.bin")


class TestAedat2:
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("header", ["", "# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"])
    def test_dvs128(self, tmp_path: Path, header: str, version: int) -> None:
        words = [(x << 8 | y << 1 | p, t) for x, y, t, p in LONG]
        words.insert(7, (1 << 15, LONG[7][2]))  # a signal
        (tmp_path / "a.aedat").write_bytes(aedat2(words, header, version))
        assert events_of(tmp_path / "a.aedat") == LONG
        assert open_events(tmp_path / "a.aedat").streams[0].sensor == (128, 128)

    @pytest.mark.parametrize(
        ("name", "size"), [("Davis346blue", (346, 260)), ("DAVIS240C", (240, 180)), ("Davis640", (640, 480))]
    )
    def test_davis_counts_from_the_lower_right_corner(self, tmp_path: Path, name: str, size: tuple[int, int]) -> None:
        words = davis(EVENTS, *size)
        for other in (1 << 31 | 5 << 12, 1 << 10 | 3 << 12):  # a pixel of a frame, and a signal
            words.insert(9, (other, words[9][1]))
        header = f"# HardwareInterface: DAVIS FX3\r\n# AEChip: eu.seebetter.ini.chips.davis.{name}\r\n"
        (tmp_path / "a.aedat").write_bytes(aedat2(words, header))
        assert events_of(tmp_path / "a.aedat") == EVENTS
        assert open_events(tmp_path / "a.aedat").streams[0].sensor == (size[1], size[0])

    def test_camera_without_a_name(self, tmp_path: Path) -> None:
        events = [(300, 200, 5, 1), *((x, y, t + 5, p) for x, y, t, p in EVENTS)]
        (tmp_path / "a.aedat").write_bytes(aedat2(davis(events, 346, 260)))
        reader = open_events(tmp_path / "a.aedat")
        assert rows(read_stream(reader)) == events
        assert reader.notes == ["read as DAVIS of 260 x 346 pixels; the header names no camera"]

    def test_time_overflows(self, tmp_path: Path) -> None:
        start = 2**32 - 50_000
        words = [(x << 8 | y << 1 | p, (t + start) % 2**32) for x, y, t, p in EVENTS]
        (tmp_path / "a.aedat").write_bytes(aedat2(words))
        assert [e[2] - start for e in rows(read(tmp_path / "a.aedat")[0].events)] == [e[2] for e in EVENTS]


class TestEventStream:
    @pytest.mark.parametrize("kind", [1, 2])
    def test_events(self, tmp_path: Path, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.es").write_bytes(event_stream(EVENTS, 30, kind))
        assert events_of(tmp_path / "a.es") == EVENTS
        monkeypatch.setattr("slowfast.datasets.dvs.formats.event_stream.BLOCK_BYTES", 7)
        (stream,) = read(tmp_path / "a.es")
        assert (rows(stream.events), stream.sensor, stream.damage) == (EVENTS, (30, 34), None)

    def test_reset_truncation_and_exposure(self, tmp_path: Path) -> None:
        head = event_stream([], 30)
        event = struct.pack("<BHH", 5 << 1 | 1, 3, 29)
        (tmp_path / "a.es").write_bytes(head + b"\xfe\xfe" + event + b"\xff" + event + event[:3])
        (stream,) = read(tmp_path / "a.es")
        assert rows(stream.events) == [(3, 0, 5, 1), (3, 0, 137, 1)]
        assert stream.damage == "truncated: the file ends within an event, after 3 of 5 bytes"
        exposure = struct.pack("<BHH", 5 << 2 | 1, 3, 29)
        change = struct.pack("<BHH", 5 << 2 | 2, 3, 29)
        (tmp_path / "b.es").write_bytes(event_stream([], 30, 2) + exposure + change)
        assert rows(read(tmp_path / "b.es")[0].events) == [(3, 0, 10, 1)]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"Event Stream\2\0", "the header is incomplete"),
            (b"Event Stream\3\0\0\1" + bytes(4), "unsupported version 3"),
            (b"Event Stream\2\0\0\4" + bytes(4), "contains color events"),
            (b"Event stream" + bytes(8), "not an Event Stream file"),
        ],
    )
    def test_others(self, tmp_path: Path, data: bytes, message: str) -> None:
        (tmp_path / "a.es").write_bytes(data)
        with pytest.raises(DecodeError, match=message):
            open_events(tmp_path / "a.es")


def text(order: str, separator: str, header: str = "", scale: float = 1, ending: str = "\n", digits: int = 0) -> str:
    def cell(event: Event, key: str) -> str:
        value = event["xytp".index(key)]
        return f"{value * scale:.{digits}f}" if key == "t" and scale != 1 else str(value)

    lines = [separator.join(cell(event, key) for key in order) for event in EVENTS]
    return header + ending.join(lines) + ending


class TestText:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("rpg.txt", "34 30\n" + text("txyp", " ", scale=1e-6, digits=9)),
            ("prophesee.csv", text("xypt", ",", "%geometry:34,30\n")),
            ("header.csv", text("txyp", ",", "t,x,y,p\n")),
            ("faery.csv", text("txyp", ",", "t,x@34,y@30,on\n")),
            ("pandas.csv", text("pxyt", ";", "Polarity;X;Y;Timestamp\r\n", ending="\r\n")),
            ("units.csv", text("txyp", ",", "time [ms],x,y,p\n", 1e-3, digits=3)),
            ("ns.csv", text("xytp", "\t", "x\ty\tt_ns\tp\n", 1000)),
            ("comment.txt", text("xytp", " ", "# x y t p\n# another\n")),
            ("ms.txt", text("xytp", " ", scale=1e-3, digits=3)),
            ("bom.csv", "\ufeff" + text("txyp", ",", "t,x,y,p\n")),
            ("bool.csv", text("txyp", ",", "t,x,y,p\n").replace(",1\n", ",True\n").replace(",0\n", ",False\n")),
            ("signed.txt", text("txyp", " ").replace(" 0\n", " -1\n")),
        ],
    )
    def test_layouts(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).write_text(content)
        assert events_of(tmp_path / name) == EVENTS
        stated = name in ("rpg.txt", "prophesee.csv", "faery.csv")
        assert open_events(tmp_path / name).streams[0].sensor == ((30, 34) if stated else None)

    def test_small_blocks_and_damage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("slowfast.datasets.dvs.formats.text.BLOCK_BYTES", 100)
        content = text("txyp", ",", "t,x,y,p\n")
        (tmp_path / "a.csv").write_text(content.rstrip("\n"))
        assert events_of(tmp_path / "a.csv") == EVENTS
        lines = content.splitlines(keepends=True)
        (tmp_path / "b.csv").write_text("".join([*lines[:101], "\n", *lines[101:201], "12,x\n", *lines[201:]]))
        (stream,) = read(tmp_path / "b.csv")
        assert rows(stream.events) == EVENTS[:200]
        assert stream.damage == "line 203: '12,x' has no 4 numbers; the events before were read"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("Some remarks about the data.\n", "line 1: 'Some remarks about the data.' is not an event"),
            ("# nothing\n", "the file contains no events"),
            ("1,2,3\n4,5,6\n", "line 1 has 3 numbers"),
            ("class,startTime_usec,endTime_usec\n1,2,3\n", "line 1: 'class,startTime"),
            ("1 70000 3 1\n2 70000 5 1\n", "the values do not|its values do not show"),
            ("t,x,y,p\n1,2,3,4\n", "p contains 4"),
            ("t,x,y,p\n1,2.5,3,1\n", "x contains values that are not pixels"),
        ],
    )
    def test_others(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "a.txt").write_text(content)
        with pytest.raises(DecodeError, match=message):
            read(tmp_path / "a.txt")


class TestNumpy:
    @pytest.mark.parametrize("order", ["txyp", "xytp", "xypt", "ptxy"])
    @pytest.mark.parametrize("kind", [np.int64, np.float64, np.float32, np.uint32])
    @pytest.mark.parametrize("layout", ["rows", "columns", "fortran"])
    def test_tables(self, tmp_path: Path, order: str, kind: type, layout: str) -> None:
        table = np.stack([COLUMNS[key] for key in order], 1).astype(kind)
        table = table.T if layout == "columns" else np.asfortranarray(table) if layout == "fortran" else table
        np.save(tmp_path / "a.npy", table)
        assert events_of(tmp_path / "a.npy") == EVENTS

    def test_files_of_tonic_have_milliseconds(self, tmp_path: Path) -> None:
        table = np.stack([COLUMNS[key] for key in "xypt"], 1).astype(np.float64)
        table[:, 3] /= 1000
        np.save(tmp_path / "a.npy", table)
        assert events_of(tmp_path / "a.npy") == EVENTS
        notes = ["columns without names read as x, y, p, t", "times read as milliseconds"]
        assert open_events(tmp_path / "a.npy").notes == notes
        recording = Recording(tmp_path / "a.npy")
        # A unit set by the user takes precedence over a guess.
        assert recording.time_unit(1e-6) == 1e-6 and recording.time_unit(1.0) == pytest.approx(1e-3)

    @pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
    def test_es_imagenet(self, tmp_path: Path, write: Callable[..., None]) -> None:
        rng = np.random.default_rng(0)
        parts = {name: rng.integers((0, 0, 1), (224, 200, 9), (150, 3)).astype(np.uint8) for name in ("pos", "neg")}
        write(tmp_path / "a.npz", **parts)
        want = [(*row, p) for name, p in (("pos", 1), ("neg", 0)) for row in parts[name].tolist()]
        assert events_of(tmp_path / "a.npz") == sorted(want, key=lambda event: event[2])

    @pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
    def test_archives(self, tmp_path: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("slowfast.datasets.dvs.formats.numpy_files.BLOCK_EVENTS", 64)
        write(tmp_path / "a.npz", **COLUMNS)
        write(tmp_path / "b.npz", np.stack([COLUMNS[key] for key in "txyp"], 1))
        record = np.zeros(300, [("timestamp", "<i8"), ("x", "<u2"), ("y", "<u2"), ("polarity", "?")])
        for name, key in zip(record.dtype.names or (), "txyp", strict=True):
            record[name] = COLUMNS[key]
        write(tmp_path / "c.npz", event_data=record)
        for name in "abc":
            assert events_of(tmp_path / f"{name}.npz") == EVENTS

    def test_damaged_compressed_archive(self, tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", **COLUMNS)
        with zipfile.ZipFile(tmp_path / "a.npz") as file:
            start = file.getinfo("t.npy").header_offset
        data = bytearray((tmp_path / "a.npz").read_bytes())
        data[start + 150 : start + 200] = bytes(50)
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(DecodeError, match="not a readable .npz file"):
            read(tmp_path / "a.npz")
        with pytest.raises(DecodeError, match="not a readable .npz file"):
            Recording(tmp_path / "a.npz").take(slice(None))


class TestMat:
    def test_st_mnist(self, tmp_path: Path) -> None:
        values = np.zeros((101, 40))
        values[100] = np.arange(40) * 0.000123
        want = []
        for k in range(40):
            taxel = (k * 37) % 100
            values[taxel, k] = 1 if k % 3 else -1
            want.append((taxel % 10, taxel // 10, k * 123, int(k % 3 > 0)))
        savemat(tmp_path / "a.mat", {"spiketrain": values})
        (stream,) = read(tmp_path / "a.mat")
        assert (rows(stream.events), stream.sensor) == (want, (10, 10))

    def test_td_structures_count_from_one(self, tmp_path: Path) -> None:
        structure = {"x": COLUMNS["x"] + 1, "y": COLUMNS["y"] + 1, "ts": COLUMNS["t"], "p": COLUMNS["p"] + 1}
        savemat(tmp_path / "a.mat", {"TD": structure})
        assert events_of(tmp_path / "a.mat") == EVENTS

    @pytest.mark.parametrize(
        ("content", "message"),
        [({"spiketrain": np.zeros((5, 5))}, "must have 101 rows"), ({"TD": {"x": 1}}, "TD must be one structure")],
    )
    def test_others(self, tmp_path: Path, content: dict[str, object], message: str) -> None:
        savemat(tmp_path / "a.mat", content)
        with pytest.raises(DecodeError, match=message):
            read(tmp_path / "a.mat")


class TestHdf5:
    def test_dsec(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for key, values in COLUMNS.items():
                file.create_dataset(f"events/{key}", data=values.astype("u4"), chunks=(64,), compression="gzip")
            file["t_offset"] = 49_000_000
            file["ms_to_idx"] = np.searchsorted(COLUMNS["t"], np.arange(0, 100_000, 1000))
            file["rectify_map"] = np.zeros((480, 640, 2), np.float32)
        assert [(x, y, t - 49_000_000, p) for x, y, t, p in events_of(tmp_path / "a.h5")] == EVENTS
        assert open_events(tmp_path / "a.h5").streams[0].sensor == (480, 640)

    def test_metavision(self, tmp_path: Path) -> None:
        record = np.zeros(300, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
        for key in "xytp":
            record[key] = COLUMNS[key]
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file.create_dataset("CD/events", data=record, chunks=(100,))
            file["CD/indexes"] = np.zeros(3, [("id", "<u8"), ("ts", "<i8")])
            file["EXT_TRIGGER/events"] = np.zeros(2, [("p", "<i2"), ("t", "<i8"), ("id", "<i2")])
            file.attrs["geometry"] = "1280x720"
        assert events_of(tmp_path / "a.hdf5") == EVENTS
        assert open_events(tmp_path / "a.hdf5").streams[0].sensor == (720, 1280)

    def test_mvsec_has_seconds_and_two_cameras(self, tmp_path: Path) -> None:
        start = 1_506_119_776
        table = np.stack([COLUMNS["x"], COLUMNS["y"], start + COLUMNS["t"] * 1e-6, 2 * COLUMNS["p"] - 1], 1)
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            file["davis/left/events"] = table
            file["davis/right/events"] = table[::-1][::-1][:100]
            file["davis/left/imu"] = np.zeros((5, 6))
        left, right = read(tmp_path / "a.hdf5")
        assert (left.name, right.name, left.sensor) == ("left", "right", (260, 346))
        assert [(x, y, t - start * 10**6, p) for x, y, t, p in rows(left.events)] == EVENTS
        assert len(right.events.t) == 100
        for name in ("", "middle"):
            with pytest.raises(
                DecodeError, match=r"contains 2 event streams \(left, right\).*Choose one with DVS.STREAM"
            ):
                Recording(tmp_path / "a.hdf5", name)

    def test_one_of_several_streams(self, tmp_path: Path) -> None:
        """Choose a stream in every way of reading; a file with one stream needs no name."""
        file, record = tmp_path / "a.aedat4", Record(0, tmp_path / "a.aedat4", "a", 0)
        file.write_bytes(aedat4([EVENTS[:200], EVENTS[200:]]))
        sensor, times = (200, 300), [event[2] for event in EVENTS[200:]]
        assert rows(Recording(file, "stream1").take(slice(None))) == EVENTS[200:]
        sampling = EventSampling(sensor, 0, "random_sample", "none", 0.0, 1e-6, stream="stream1")
        (sample,) = sampling.draw(record, [(0,)], Repairs())
        assert sample.t.tolist() == times
        assert duration(file, sensor, 1e-6, "stream1") == times[-1] - times[0]
        reader = EventFramesReader(file, sensor, 1e-6, 2, "counts", 1.0, stream="stream1")
        assert reader.events.t.tolist() == times
        np.savez(tmp_path / "b.npz", **COLUMNS)
        assert Recording(tmp_path / "b.npz", "stream1").n == len(EVENTS)

    def test_m3ed_and_rpg(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "m3ed.h5", "w") as file:
            for key, values in COLUMNS.items():
                file[f"prophesee/left/{key}"] = values
            file["prophesee/left/calib/resolution"] = [1280, 720]
            file["ovc/left/data"] = np.zeros((2, 4, 4))
        with h5py.File(tmp_path / "rpg.h5", "w") as file:
            for key, values in COLUMNS.items():
                file[f"events/{key}s"] = values * 1e-6 if key == "t" else values
            file.attrs["sensor_resolution"] = (180, 240)
        for name, sensor in (("m3ed.h5", (720, 1280)), ("rpg.h5", (180, 240))):
            assert events_of(tmp_path / name) == EVENTS
            assert open_events(tmp_path / name).streams[0].sensor == sensor

    def test_shd_has_a_stream_per_sample(self, tmp_path: Path) -> None:
        times = [np.array([0.001, 0.25, 0.5], np.float16), np.array([0.125], np.float16)]
        with h5py.File(tmp_path / "a.h5", "w") as file:
            kinds = {"times": np.float16, "units": np.uint16}
            for name, kind in kinds.items():
                file.create_dataset(f"spikes/{name}", (2,), h5py.vlen_dtype(kind))
            for number, values in enumerate(times):
                file["spikes/times"][number] = values
                file["spikes/units"][number] = np.arange(len(values)) * 100
            file["labels"] = [7, 19]
        reader = open_events(tmp_path / "a.h5")
        assert [(s.name, s.sensor, s.label) for s in reader.streams] == [("0", (1, 700), "7"), ("1", (1, 700), "19")]
        first = rows(read_stream(reader, 0))
        assert [event[:2] for event in first] == [(0, 0), (100, 0), (200, 0)] and {event[3] for event in first} == {1}
        assert [event[2] for event in first] == pytest.approx([1000, 250_000, 500_000], abs=1)
        data = (tmp_path / "a.h5").read_bytes()
        with h5py.File(tmp_path / "a.h5") as file:
            at = file["spikes/units"].id.get_offset()
        # HDF5 would reserve memory for that many values.
        (tmp_path / "b.h5").write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
        with pytest.raises(DecodeError, match="spikes/units states a sample of 4294967295 values"):
            open_events(tmp_path / "b.h5")

    def test_missing_filters_are_named(self, tmp_path: Path) -> None:
        for number, name, way in ((32001, "blosc", "pip install hdf5plugin"), (0x8ECF, "ECF", "HDF5_PLUGIN_PATH")):
            with h5py.File(tmp_path / "a.h5", "w") as file:
                for key, values in COLUMNS.items():
                    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    properties.set_chunk((300,))
                    properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
                    space = h5py.h5s.create_simple((300,))
                    group = file.require_group("events").id
                    dataset = h5py.h5d.create(group, key.encode(), h5py.h5t.NATIVE_INT64, space, properties)
                    dataset.write_direct_chunk((0,), values.astype(np.int64).tobytes())
            with pytest.raises(DecodeError, match=rf"compressed with {name} \(HDF5 filter {number}\).*{way}"):
                read(tmp_path / "a.h5")

    def test_others(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["rectify_map"] = np.zeros((4, 4))
        with pytest.raises(DecodeError, match="no events found, only rectify_map"):
            open_events(tmp_path / "a.h5")
        (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:500])
        with pytest.raises(DecodeError, match="not a readable .h5 file"):
            open_events(tmp_path / "b.h5")


def test_users_can_register_a_format(tmp_path: Path) -> None:
    class Mine(EventReader):
        suffixes, label = (".mine",), "my format"

        def blocks(self, stream: int = 0):  # type: ignore[no-untyped-def]
            values = np.array([[int(word) for word in line.split()] for line in self.path.read_text().splitlines()])
            yield EventBlock(values[:, 2], values[:, 0], values[:, 1], values[:, 3].astype(np.uint8))

    EVENT_READER_REGISTRY.register(Mine, name="mine")
    try:
        (tmp_path / "a.mine").write_text("\n".join(" ".join(map(str, event)) for event in EVENTS))
        assert events_of(tmp_path / "a.mine") == EVENTS
    finally:
        del EVENT_READER_REGISTRY._obj_map["mine"]
    with pytest.raises(DecodeError, match=r"unknown suffix. Event recordings end in .aedat"):
        open_events(tmp_path / "a.mine")


@pytest.mark.parametrize("size", [1, 7, 400])
def test_overflows_are_undone_block_by_block(size: int) -> None:
    whole = np.cumsum(np.random.default_rng(0).integers(0, 2**31, 300)) + 2**32 - 5
    whole[10:20] = whole[10:20][::-1]  # late events
    unwrap = TimeUnwrapper(32)
    parts = [unwrap((whole[at : at + size] % 2**32).astype(np.uint32)) for at in range(0, 300, size)]
    found = np.concatenate(parts)
    assert np.array_equal(np.diff(found)[25:], np.diff(whole)[25:])
