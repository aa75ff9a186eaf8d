"""Reading, mapping and repairing files of events."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import OVERFLOW, STRAY, UNSORTED, as_events, repair, undo_overflow

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
    def test_npz_stored_is_mapped_and_compressed_is_read(self, tmp_path: Path) -> None:
        want = columns()
        np.savez(tmp_path / "a.npz", **want)
        np.savez_compressed(tmp_path / "b.npz", **want)
        stored, packed = Recording(tmp_path / "a.npz"), Recording(tmp_path / "b.npz")
        assert all(isinstance(column, np.memmap) for column in stored.columns.values())
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

    def test_other_names_of_columns(self, tmp_path: Path) -> None:
        want = columns()
        np.savez(tmp_path / "a.npz", X=want["x"], y=want["y"], ts=want["t"], polarity=want["p"])
        assert same(Recording(tmp_path / "a.npz").take(slice(None)), want)

    def test_mapping_finds_arrays_behind_any_header(self, tmp_path: Path) -> None:
        """A zip file's members may have headers of their own with extra bytes, other orders and byte orders."""
        want = columns()
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
            for key in "ptyx":
                info = zipfile.ZipInfo(f"{key}.npy")
                info.extra = b"\x99\x99\x05\x00extra"
                np.save(tmp_path / "one.npy", want[key].astype(want[key].dtype.newbyteorder(">")))
                file.writestr(info, (tmp_path / "one.npy").read_bytes())
        assert same(Recording(tmp_path / "a.npz").take(slice(None)), want)

    def test_few_events_of_many_read_few_bytes(self, tmp_path: Path) -> None:
        """Only the pages of the chosen events are read of a mapped file: of the whole nothing is copied."""
        np.savez(tmp_path / "a.npz", **columns(20000))
        part = Recording(tmp_path / "a.npz").take(np.arange(10))
        assert all(type(column) is np.ndarray and column.base is None for column in part.values())
        assert sum(column.nbytes for column in part.values()) <= 10 * 4 * 8


class TestWhatCannotBeRead:
    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(DecodeError, match=message):
            Recording(path)

    def test_missing_empty_damaged(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.npz", "does not exist")
        (tmp_path / "empty.npz").write_bytes(b"")
        self.refused(tmp_path / "empty.npz", "cannot be read as .npz")
        np.savez(tmp_path / "cut.npz", **columns())
        (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:900])
        self.refused(tmp_path / "cut.npz", "cannot be read as .npz")
        (tmp_path / "text.npy").write_text("t x y p")
        self.refused(tmp_path / "text.npy", "cannot be read as .npy")

    def test_no_events(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **columns(0))
        self.refused(tmp_path / "a.npz", "no events")

    def test_columns_that_are_missing_or_unlike(self, tmp_path: Path) -> None:
        events = columns()
        np.savez(tmp_path / "a.npz", x=events["x"], y=events["y"])
        self.refused(tmp_path / "a.npz", "no t, p, only x, y")
        np.savez(tmp_path / "b.npz", **{**events, "x": events["x"][:5]})
        self.refused(tmp_path / "b.npz", "equally long")
        np.save(tmp_path / "c.npy", np.zeros((5, 4)))
        self.refused(tmp_path / "c.npy", "no names")

    def test_objects_are_never_read(self, tmp_path: Path) -> None:
        array = np.array([print], dtype=object)
        np.savez(tmp_path / "a.npz", **{**columns(1), "t": array})
        np.save(tmp_path / "b.npy", array, allow_pickle=True)
        self.refused(tmp_path / "a.npz", "objects|Object")
        self.refused(tmp_path / "b.npy", "objects|Object")


class TestRepair:
    def test_clean_events_are_taken_as_they_are(self) -> None:
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
    def test_other_polarities_mean_nothing_certain(self, wrong: int) -> None:
        raw = columns()
        raw["p"][0], raw["p"][1] = wrong, 0
        with pytest.raises(DecodeError, match="p holds"):
            as_events(raw, SENSOR, MICROSECOND)

    def test_time_unit(self) -> None:
        raw = columns()
        events = as_events({**raw, "t": raw["t"] / 1e6}, SENSOR, 1.0)
        assert events is not None
        np.testing.assert_allclose(events.t, raw["t"])

    def test_stray_events_are_left_out_and_many_are_refused(self) -> None:
        raw = columns()
        raw["x"][5], raw["y"][9] = 16, -1
        assert as_events(raw, SENSOR, MICROSECOND) is None
        events, done = repair(raw, SENSOR, MICROSECOND)
        assert done == [STRAY] and np.array_equal(events.t, np.delete(raw["t"], [5, 9]))
        with pytest.raises(DecodeError, match=r"off the sensor of 6 x 16 .*SENSOR_SIZE"):
            repair(raw, (6, 16), MICROSECOND)

    def test_unsorted_events_are_sorted_stably(self) -> None:
        raw = columns()
        order = np.random.default_rng(1).permutation(200)
        mixed = {key: values[order] for key, values in raw.items()}
        assert as_events(mixed, SENSOR, MICROSECOND) is None
        events, done = repair(mixed, SENSOR, MICROSECOND)
        assert done == [UNSORTED] and np.array_equal(events.t, raw["t"])

    @pytest.mark.parametrize(("counter", "kind"), [(2**31, np.int64), (2**32, np.uint32), (2**32, np.int32)])
    def test_an_overflow_is_undone(self, counter: int, kind: type) -> None:
        whole = np.arange(0, 40_000_000, 100_000) + (counter - 20_000_000 if kind != np.int32 else 2**31 - 20_000_000)
        wrapped = (whole % counter).astype(np.uint64).astype(kind) if kind != np.int32 else whole.astype(np.int32)
        found = undo_overflow(wrapped.astype(np.float64))
        assert found is not None and np.array_equal(np.diff(found), np.diff(whole))
        raw = columns(len(whole))
        events, done = repair({**raw, "t": wrapped}, SENSOR, MICROSECOND)
        assert done == [OVERFLOW] and np.array_equal(np.diff(events.t), np.diff(whole))

    def test_disorder_about_an_overflow_keeps_its_place(self) -> None:
        whole = np.array([10.0, 20, 30, 50, 40, 60]) + 2**32 - 35
        found = undo_overflow(whole % 2**32)
        assert found is not None and np.array_equal(found, whole)

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.5])
    def test_values_that_are_no_pixels(self, value: float) -> None:
        events = columns()
        events["x"] = events["x"].astype(np.float64)
        events["x"][7] = value
        with pytest.raises(DecodeError, match=f"x holds values that are no pixels, such as {value}"):
            as_events(events, SENSOR, MICROSECOND)

    def test_values_that_are_no_pixels_or_times(self) -> None:
        raw = columns()
        with pytest.raises(DecodeError, match="no pixels"):
            as_events({**raw, "x": raw["x"] + 0.5}, SENSOR, MICROSECOND)
        with pytest.raises(DecodeError, match="no times"):
            as_events({**raw, "t": raw["t"] * np.nan}, SENSOR, MICROSECOND)
