""".mat files of ASL-DVS, ST-MNIST and TD structures, and invalid ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from slowfast.cli.main import main
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.recording import Recording
from slowfast.errors import UserError
from tests.raw_recordings import COLUMNS, EVENTS, events_of, read, rows, some_events

ASL_EVENTS = some_events(200, width=240, height=180)
TABLE = np.array(ASL_EVENTS)  # x, y, t, p
MAT = {"x": TABLE[:, [0]], "y": TABLE[:, [1]], "ts": TABLE[:, [2]], "pol": TABLE[:, [3]]}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.float64, np.uint32])
def test_events_are_rotated_upright(tmp_path: Path, compressed: bool, kind: type) -> None:
    """Equal SpikingJelly's conversion, on which the published weights were trained."""
    columns = {key: column.astype(kind) for key, column in MAT.items()}
    savemat(tmp_path / "a.mat", columns, do_compression=compressed)
    (stream,) = read(tmp_path / "a.mat")
    assert rows(stream.events) == [(239 - x, 179 - y, t, p) for x, y, t, p in ASL_EVENTS]
    assert stream.sensor == (180, 240)


def test_to_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mat" / "a").mkdir(parents=True)
    savemat(tmp_path / "mat" / "a" / "a_0001.mat", {**MAT, "x": MAT["x"].astype(np.uint8)})
    (tmp_path / "mat" / "a" / "new.mat").write_bytes(matlab_73())
    (tmp_path / "mat" / "a" / "text.mat").write_text("no .mat file, but long enough to look at" * 10)
    assert main(["convert-dvs", str(tmp_path / "mat"), str(tmp_path / "npz"), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "failed: a/new.mat: MATLAB 7.3 files (HDF5) are not supported. Load it in MATLAB and run save(" in said
    assert "failed: a/text.mat: not a readable .mat file" in said
    assert "DVS.SENSOR_SIZE [180,240]: in 1 of 1 recordings" in said
    found = Recording(tmp_path / "npz" / "a" / "a_0001.npz").take(slice(None))
    assert rows(found) == [(239 - x, 179 - y, t, p) for x, y, t, p in ASL_EVENTS]


def matlab_73() -> bytes:
    """Return the beginning of a MATLAB 7.3 file: a text, the version, then HDF5."""
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 ."
    return text.ljust(124) + b"\x00\x02IM" + b"\0" * 384 + b"\x89HDF\r\n\x1a\n" + b"\0" * 64


def test_damaged_elements_that_scipy_crashes_on(tmp_path: Path) -> None:
    """Refuse types of elements that do not exist, wherever they are, in the process that reads."""
    fields = {key: TABLE[:40, [number]] for number, key in enumerate(("x", "y", "ts", "p"))}
    savemat(tmp_path / "a.mat", {"TD": fields})
    data, refused = (tmp_path / "a.mat").read_bytes(), 0
    for first in range(128, len(data) - 8, 8):
        (tmp_path / "a.mat").write_bytes(data[:first] + bytes(8) + data[first + 8 :])
        try:
            read(tmp_path / "a.mat")
        except DecodeError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ts": None}, "missing ts. Expected a file of ASL-DVS with x, y, ts, pol"),
        ({"x": MAT["x"] + 200}, "x contains .*; expected integers from 0 to 239"),
        ({"y": MAT["y"] / 2}, "y contains .*; expected integers from 0 to 179"),
        ({"x": MAT["x"][1:]}, "must be numeric and of equal length"),
        ({"pol": "text"}, "must be numeric and of equal length"),
        ({"ts": MAT["ts"] * np.nan}, "ts contains values that are not finite"),
    ],
)
def test_other_files(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    content = {key: value for key, value in {**MAT, **changed}.items() if value is not None}
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(DecodeError, match=message):
        read(tmp_path / "a.mat")


def test_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    (tmp_path / "a.mat").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"slowfast\[events\]"):
        read(tmp_path / "a.mat")


def test_too_many_events_are_refused_before_decompression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat(tmp_path / "a.mat", MAT, do_compression=True)
    monkeypatch.setattr("slowfast.datasets.dvs.formats.base.MAX_EVENTS", 199)
    monkeypatch.setattr("scipy.io.loadmat", None)
    with pytest.raises(DecodeError, match="200 events exceed the limit of 199"):
        read(tmp_path / "a.mat")


def test_st_mnist(tmp_path: Path) -> None:
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


def test_td_structures_count_from_one(tmp_path: Path) -> None:
    structure = {"x": COLUMNS["x"] + 1, "y": COLUMNS["y"] + 1, "ts": COLUMNS["t"], "p": COLUMNS["p"] + 1}
    savemat(tmp_path / "a.mat", {"TD": structure})
    assert events_of(tmp_path / "a.mat") == EVENTS


@pytest.mark.parametrize(
    ("content", "message"),
    [({"spiketrain": np.zeros((5, 5))}, "must have 101 rows"), ({"TD": {"x": 1}}, "TD must be one structure")],
)
def test_other_structures(tmp_path: Path, content: dict[str, object], message: str) -> None:
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(DecodeError, match=message):
        read(tmp_path / "a.mat")
