"""Reading and repair of event recordings."""

from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import MAX_EVENTS
from slowfast.datasets.dvs.formats.columns import StoredColumn
from slowfast.datasets.dvs.recording import OVERFLOW, STRAY, UNSORTED, Recording, as_events, repair, undo_overflow

SENSOR = (12, 16)
MICROSECOND = 1e-6
Columns = dict[str, np.ndarray]


def columns(n: int = 200, seed: int = 0) -> Columns:
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, limit, n) for limit in (16, 12, 2))
    return {"x": x.astype(np.int16), "y": y.astype(np.int16), "t": np.sort(rng.integers(5, 9000, n)), "p": p}


def same(found: Columns, want: Columns) -> bool:
    return all(np.array_equal(found[key], want[key]) for key in "xytp")


def structured(events: Columns) -> np.ndarray:
    array = np.empty(len(events["t"]), [(key, events[key].dtype) for key in ("t", "x", "y", "p")])
    for key in "xytp":
        array[key] = events[key]
    return array


class TestForms:
    def test_uncompressed_npz_is_read_on_demand(self, tmp_path: Path) -> None:
        want = columns()
        np.savez(tmp_path / "a.npz", **want)
        np.savez_compressed(tmp_path / "b.npz", **want)
        stored, packed = Recording(tmp_path / "a.npz"), Recording(tmp_path / "b.npz")
        assert all(isinstance(column, StoredColumn) for column in stored.columns.values())
        rows = np.array([3, 7, 150])
        for recording in (stored, packed):
            assert recording.n == 200 and same(recording.take(slice(None)), want)
            assert same(recording.take(rows), {key: values[rows] for key, values in want.items()})

    def test_structured_npy_and_npz(self, tmp_path: Path) -> None:
        want = columns()
        np.save(tmp_path / "a.npy", structured(want))
        np.savez(tmp_path / "b.npz", events=structured(want))
        for name in ("a.npy", "b.npz"):
            assert same(Recording(tmp_path / name).take(slice(None)), want)

    def test_alternative_column_names(self, tmp_path: Path) -> None:
        want = columns()
        np.savez(tmp_path / "a.npz", X=want["x"], y=want["y"], ts=want["t"], polarity=want["p"])
        assert same(Recording(tmp_path / "a.npz").take(slice(None)), want)

    def test_uncompressed_arrays_behind_any_header(self, tmp_path: Path) -> None:
        """Local headers of zip members may have extra bytes, and arrays other orders and byte orders."""
        want = columns()
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            for key in "ptyx":
                info = zipfile.ZipInfo(f"{key}.npy")
                info.extra = b"\x99\x99\x05\x00extra"
                np.save(tmp_path / "one.npy", want[key].astype(want[key].dtype.newbyteorder(">")))
                file.writestr(info, (tmp_path / "one.npy").read_bytes())
        assert same(Recording(tmp_path / "a.npz").take(slice(None)), want)

    def test_few_events_read_few_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        want, read = columns(200_000), []
        np.savez(tmp_path / "a.npz", **want)
        recording, pread = Recording(tmp_path / "a.npz"), os.pread
        monkeypatch.setattr(os, "pread", lambda file, size, start: read.append(size) or pread(file, size, start))
        for rows in (np.array([3, 199_999, 100_000, 3, -1]), np.arange(500, 510)):
            read.clear()
            assert same(recording.take(rows), {key: values[rows] for key, values in want.items()})
            assert sum(read) <= len(rows) * 4 * 8

    @given(rows=st.lists(st.integers(-300, 299), max_size=40), as_records=st.booleans())
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
    def test_any_events_in_any_order(self, tmp_path: Path, rows: list[int], as_records: bool) -> None:
        want = columns(300)
        if as_records:
            np.save(tmp_path / "a.npy", structured(want))
        else:
            np.savez(tmp_path / "a.npz", **want)
        path, wanted = tmp_path / ("a.npy" if as_records else "a.npz"), np.array(rows, np.int64)
        assert same(Recording(path).take(wanted), {key: values[wanted] for key, values in want.items()})


class TestWhatCannotBeRead:
    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(DecodeError, match=message):
            Recording(path)

    def test_missing_empty_damaged(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.npz", "no such file or directory")
        (tmp_path / "empty.npz").write_bytes(b"")
        self.refused(tmp_path / "empty.npz", "empty")
        np.savez(tmp_path / "cut.npz", **columns())
        (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:900])
        self.refused(tmp_path / "cut.npz", "not a readable .npz file")
        (tmp_path / "text.npy").write_text("t x y p")
        self.refused(tmp_path / "text.npy", "not a readable .npy file")

    def test_truncation_while_reading(self, tmp_path: Path) -> None:
        """A memory-mapped file would kill the process with SIGBUS."""
        np.savez(tmp_path / "a.npz", **columns(20_000))
        recording = Recording(tmp_path / "a.npz")
        os.truncate(tmp_path / "a.npz", 3000)
        for rows in (slice(None), np.array([5, 19_999]), np.array([19_999])):
            with pytest.raises(DecodeError, match="the file ends before its last event"):
                recording.take(rows)

    def test_pipes_and_devices_are_never_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.npz")
        (tmp_path / "b.npy").symlink_to("/dev/zero")
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(tmp_path / "c.npz"))
            for name in ("a.npz", "b.npy", "c.npz"):
                self.refused(tmp_path / name, "empty|regular")

    @pytest.mark.parametrize("kind", [np.uint8, np.float64])
    def test_oversized_archives(self, tmp_path: Path, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sizes are read from headers, without decompression."""
        if kind == np.float64:
            monkeypatch.setattr("slowfast.datasets.dvs.formats.base.MAX_BYTES", 2**26)  # compressing 2 GiB is slow
        events = MAX_EVENTS + 1 if kind == np.uint8 else 2**26 // 32 + 1
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for key in "xytp":
                with file.open(f"{key}.npy", "w") as member:
                    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (events,)}
                    np.lib.format.write_array_header_1_0(member, header)
                    left = events * np.dtype(kind).itemsize
                    while left:
                        left -= member.write(bytes(min(left, 2**24)))
        read, sizes = zipfile.ZipExtFile.read, []

        def counted(self: zipfile.ZipExtFile, size: int | None = -1) -> bytes:
            data = read(self, size)
            sizes.append(len(data))
            return data

        monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
        self.refused(
            tmp_path / "a.npz", "exceed the limit of 67108864" if kind == np.uint8 else "0.1 GiB after decompression"
        )
        assert 0 < sum(sizes) < 2**16

    def test_event_limit_applies_to_full_reads_only(self, tmp_path: Path) -> None:
        header = {"descr": [(key, "<i2") for key in "xytp"], "fortran_order": False, "shape": (2**32,)}
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 8 * 2**32)  # sparse file of 32 GiB
        recording = Recording(tmp_path / "a.npy")
        assert same(recording.take(np.array([7, 2**32 - 1])), dict.fromkeys("xytp", np.zeros(2, np.int16)))
        with pytest.raises(DecodeError, match=f"{2**32} events exceed the limit"):
            recording.take(slice(None))

    @pytest.mark.parametrize("shape", ["(-5,)", "(10**30,)", "(1000000000000,)", "(5, 2)", "()", "7", "('x',)"])
    def test_invalid_headers(self, tmp_path: Path, shape: str) -> None:
        header = (
            f"{{'descr': [('x','<i2'),('y','<i2'),('t','<i8'),('p','u1')], 'fortran_order': False, 'shape': {shape}}}"
        )
        data = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header.encode() + bytes(5 * 13)
        (tmp_path / "a.npy").write_bytes(data)
        self.refused(tmp_path / "a.npy", "invalid header|ends before|one-dimensional|not a readable .npy")

    @pytest.mark.parametrize("kind", ["S4", "U4", "M8[us]", "c16", "V8", "(2,)i4"])
    def test_non_numeric_values(self, tmp_path: Path, kind: str) -> None:
        np.savez(tmp_path / "a.npz", **{**columns(5), "x": np.zeros(5, kind)})
        self.refused(tmp_path / "a.npz", "x contains|dimension|invalid header")

    def test_no_events(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **columns(0))
        self.refused(tmp_path / "a.npz", "no events")

    def test_missing_and_unequal_columns(self, tmp_path: Path) -> None:
        events = columns()
        np.savez(tmp_path / "a.npz", x=events["x"], y=events["y"])
        self.refused(tmp_path / "a.npz", "missing t, p; found x, y")
        np.savez(tmp_path / "b.npz", **{**events, "x": events["x"][:5]})
        self.refused(tmp_path / "b.npz", "equal length")
        np.save(tmp_path / "c.npy", np.zeros((5, 4)))
        self.refused(tmp_path / "c.npy", "no named columns")

    def test_objects_are_never_loaded(self, tmp_path: Path) -> None:
        array = np.array([print], dtype=object)
        np.savez(tmp_path / "a.npz", **{**columns(1), "t": array})
        np.save(tmp_path / "b.npy", array, allow_pickle=True)
        self.refused(tmp_path / "a.npz", "objects|Object")
        self.refused(tmp_path / "b.npy", "objects|Object")


class TestRepair:
    def test_clean_events_are_unchanged(self) -> None:
        want = columns()
        events = as_events(want, SENSOR, MICROSECOND)
        assert events is not None and all(np.array_equal(getattr(events, key), want[key]) for key in "xytp")
        assert events.t.dtype == np.float64 and events.p.dtype == np.int64

    @pytest.mark.parametrize("kind", [bool, np.uint8, np.int8, np.float32])
    def test_polarities(self, kind: type) -> None:
        want = columns()
        given = {**want, "p": want["p"].astype(kind)}
        signed = {**want, "p": (2 * want["p"] - 1).astype(np.int8)}
        for raw in (given, signed):
            events = as_events(raw, SENSOR, MICROSECOND)
            assert events is not None and np.array_equal(events.p, want["p"])

    @pytest.mark.parametrize("wrong", [2, -1, 255])
    def test_other_polarities_are_errors(self, wrong: int) -> None:
        raw = columns()
        raw["p"][0], raw["p"][1] = wrong, 0
        with pytest.raises(DecodeError, match="p contains"):
            as_events(raw, SENSOR, MICROSECOND)

    def test_time_unit(self) -> None:
        raw = columns()
        events = as_events({**raw, "t": raw["t"] / 1e6}, SENSOR, 1.0)
        assert events is not None
        np.testing.assert_allclose(events.t, raw["t"])

    def test_stray_events_are_dropped_up_to_a_limit(self) -> None:
        raw = columns()
        raw["x"][5], raw["y"][9] = 16, -1
        assert as_events(raw, SENSOR, MICROSECOND) is None
        events, done = repair(raw, SENSOR, MICROSECOND)
        assert done == [STRAY] and np.array_equal(events.t, np.delete(raw["t"], [5, 9]))
        with pytest.raises(DecodeError, match=r"outside of the sensor of 6 x 16 .*SENSOR_SIZE"):
            repair(raw, (6, 16), MICROSECOND)

    def test_unsorted_events_are_sorted_stably(self) -> None:
        raw = columns()
        order = np.random.default_rng(1).permutation(200)
        mixed = {key: values[order] for key, values in raw.items()}
        assert as_events(mixed, SENSOR, MICROSECOND) is None
        events, done = repair(mixed, SENSOR, MICROSECOND)
        assert done == [UNSORTED] and np.array_equal(events.t, raw["t"])

    @pytest.mark.parametrize(("counter", "kind"), [(2**31, np.int64), (2**32, np.uint32), (2**32, np.int32)])
    def test_overflow_is_unwrapped(self, counter: int, kind: type) -> None:
        whole = np.arange(0, 40_000_000, 100_000) + (counter - 20_000_000 if kind != np.int32 else 2**31 - 20_000_000)
        wrapped = (whole % counter).astype(np.uint64).astype(kind) if kind != np.int32 else whole.astype(np.int32)
        found = undo_overflow(wrapped.astype(np.float64))
        assert found is not None and np.array_equal(np.diff(found), np.diff(whole))
        raw = columns(len(whole))
        events, done = repair({**raw, "t": wrapped}, SENSOR, MICROSECOND)
        assert done == [OVERFLOW] and np.array_equal(np.diff(events.t), np.diff(whole))

    def test_unordered_events_around_an_overflow(self) -> None:
        whole = np.array([10.0, 20, 30, 50, 40, 60]) + 2**32 - 35
        found = undo_overflow(whole % 2**32)
        assert found is not None and np.array_equal(found, whole)

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.5])
    def test_values_that_are_not_pixels(self, value: float) -> None:
        events = columns()
        events["x"] = events["x"].astype(np.float64)
        events["x"][7] = value
        with pytest.raises(DecodeError, match=f"x contains values that are not pixels, such as {value}"):
            as_events(events, SENSOR, MICROSECOND)

    def test_values_that_are_not_pixels_or_times(self) -> None:
        raw = columns()
        with pytest.raises(DecodeError, match="not pixels"):
            as_events({**raw, "x": raw["x"] + 0.5}, SENSOR, MICROSECOND)
        with pytest.raises(DecodeError, match="not finite"):
            as_events({**raw, "t": raw["t"] * np.nan}, SENSOR, MICROSECOND)
