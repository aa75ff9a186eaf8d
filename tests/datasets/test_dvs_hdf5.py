"""HDF5 files in the layouts of public datasets."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events, read_stream
from slowfast.datasets.dvs.recording import Recording
from tests.raw_recordings import COLUMNS, EVENTS, events_of, read, rows


def test_dsec(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, values in COLUMNS.items():
            file.create_dataset(f"events/{key}", data=values.astype("u4"), chunks=(64,), compression="gzip")
        file["t_offset"] = 49_000_000
        file["ms_to_idx"] = np.searchsorted(COLUMNS["t"], np.arange(0, 100_000, 1000))
        file["rectify_map"] = np.zeros((480, 640, 2), np.float32)
    assert [(x, y, t - 49_000_000, p) for x, y, t, p in events_of(tmp_path / "a.h5")] == EVENTS
    assert open_events(tmp_path / "a.h5").streams[0].sensor == (480, 640)


def test_metavision(tmp_path: Path) -> None:
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


def test_mvsec_has_seconds_and_two_cameras(tmp_path: Path) -> None:
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
        with pytest.raises(DecodeError, match=r"contains 2 event streams \(left, right\).*Choose one with DVS.STREAM"):
            Recording(tmp_path / "a.hdf5", name)


def test_m3ed_and_rpg(tmp_path: Path) -> None:
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


def test_shd_has_a_stream_per_sample(tmp_path: Path) -> None:
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


def test_missing_filters_are_named(tmp_path: Path) -> None:
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


def test_other_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["rectify_map"] = np.zeros((4, 4))
    with pytest.raises(DecodeError, match="no events found, only rectify_map"):
        open_events(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:500])
    with pytest.raises(DecodeError, match="not a readable .h5 file"):
        open_events(tmp_path / "b.h5")
