"""Tables and archives of NumPy."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events
from slowfast.datasets.dvs.recording import Recording
from tests.raw_recordings import COLUMNS, EVENTS, events_of, read


@pytest.mark.parametrize("order", ["txyp", "xytp", "xypt", "ptxy"])
@pytest.mark.parametrize("kind", [np.int64, np.float64, np.float32, np.uint32])
@pytest.mark.parametrize("layout", ["rows", "columns", "fortran"])
def test_tables(tmp_path: Path, order: str, kind: type, layout: str) -> None:
    table = np.stack([COLUMNS[key] for key in order], 1).astype(kind)
    table = table.T if layout == "columns" else np.asfortranarray(table) if layout == "fortran" else table
    np.save(tmp_path / "a.npy", table)
    assert events_of(tmp_path / "a.npy") == EVENTS


def test_files_of_tonic_have_milliseconds(tmp_path: Path) -> None:
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
def test_es_imagenet(tmp_path: Path, write: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.integers((0, 0, 1), (224, 200, 9), (150, 3)).astype(np.uint8) for name in ("pos", "neg")}
    write(tmp_path / "a.npz", **parts)
    want = [(*row, p) for name, p in (("pos", 1), ("neg", 0)) for row in parts[name].tolist()]
    assert events_of(tmp_path / "a.npz") == sorted(want, key=lambda event: event[2])


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_archives(tmp_path: Path, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowfast.datasets.dvs.formats.numpy_files.BLOCK_EVENTS", 64)
    write(tmp_path / "a.npz", **COLUMNS)
    write(tmp_path / "b.npz", np.stack([COLUMNS[key] for key in "txyp"], 1))
    record = np.zeros(300, [("timestamp", "<i8"), ("x", "<u2"), ("y", "<u2"), ("polarity", "?")])
    for name, key in zip(record.dtype.names or (), "txyp", strict=True):
        record[name] = COLUMNS[key]
    write(tmp_path / "c.npz", event_data=record)
    for name in "abc":
        assert events_of(tmp_path / f"{name}.npz") == EVENTS


def test_damaged_compressed_archive(tmp_path: Path) -> None:
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
