"""Malicious event recordings: each only fails itself, quickly, in training, tests and conversion."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from slowfast.cli.main import main
from tests.conftest import run_net
from tests.csv_files import read_reasons
from tests.event_files import event_settings, write_folder, write_recording
from tests.raw_recordings import aedat, aedat4, dat, evt2, evt3, some_events

pytestmark = pytest.mark.slow

GIB = 2**30


def _bomb(path: Path) -> None:
    """A small file that unpacks to 512 MiB of events."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**27,)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for key in "xytp":
            with file.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(8):
                    member.write(bytes(2**24))


def _sparse(path: Path, start: bytes, size: int = 30 * GIB) -> None:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def _write_hostile(folder: Path) -> dict[str, str]:
    """Write hostile recordings; return a part of the expected reason by name."""
    events = {key: np.arange(9) % 8 for key in "xyt"} | {"p": np.arange(9) % 2}
    os.mkfifo(folder / "fifo.npz")
    _bomb(folder / "bomb.npz")
    _sparse(folder / "sparse.npz", b"PK\x03\x04")
    _sparse(folder / "sparse.npy", b"\x93NUMPY\x01\x00")
    (folder / "device.npy").symlink_to("/dev/zero")
    (folder / "folder.npz").mkdir()
    (folder / "loop.npz").symlink_to("loop.npz")
    np.savez(folder / "objects.npz", **{**events, "x": np.array([print] * 9, dtype=object)})
    np.savez(folder / "nan.npz", **{**events, "t": np.full(9, np.nan)})
    np.savez(folder / "text.npz", **{**events, "y": np.array(["a"] * 9)})
    np.savez(folder / "none.npz", **{key: values[:0] for key, values in events.items()})
    np.savez(folder / "uneven.npz", **{**events, "p": events["p"][:5]})
    np.savez(folder / "nothing.npz")
    np.save(folder / "plain.npy", np.zeros((5, 4)))
    return {
        "fifo": "empty|regular",
        "bomb": "exceed the limit",
        "sparse": "not a readable",
        "device": "empty|regular",
        "folder": "directory|regular",
        "loop": "symbolic",
        "objects": "objects",
        "nan": "not finite",
        "text": "not numbers",
        "none": "no events",
        "uneven": "equal length",
        "nothing": "missing x",
        "plain": "no named columns",
    }


def _reasons(path: Path) -> dict[str, str]:
    return {Path(name).stem: reason for name, reason in read_reasons(path).items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_training_and_test(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        write_folder(data / split, per_class=6)
        wanted = _write_hostile(data / split / "a")
    settings = [*event_settings(data, tmp_path / "out"), "DVS.TIME_NORM", "dataset", "DATA_LOADER.NUM_WORKERS", workers]
    done = run_net([*settings, "DATA.MAX_FAILED", 0.9, "DATA_LOADER.TIMEOUT", 60, "SOLVER.MAX_EPOCH", 1])
    assert done.returncode == 0, done.stderr
    for name in ("failed_train.csv", "failed.csv"):
        reasons = _reasons(tmp_path / "out" / name)
        assert reasons.keys() == wanted.keys()
        for recording, reason in reasons.items():
            assert any(words in reason for words in wanted[recording].split("|")), (recording, reason)


def test_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    events = some_events()
    good = {"a.dat": dat(events), "b.raw": evt3(events), "c.raw": evt2(events), "d.aedat": aedat(events)}
    for name, content in {**good, "e.aedat4": aedat4([events])}.items():
        (source / f"good_{name}").write_bytes(content)
        # .dat and .raw files of any size are read, in blocks; zeros are valid events.
        if name.startswith(("d", "e")):
            _sparse(source / f"sparse_{name}", content)
        (source / f"cut_{name}").write_bytes(content[:25])
        (source / f"noise_{name}").write_bytes(np.random.default_rng(0).bytes(3000))
        os.mkfifo(source / f"fifo_{name}")
        (source / f"empty_{name}").touch()
    _sparse(source / "sparse_f.mat", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM")
    (source / "noise_f.mat").write_bytes(np.random.default_rng(0).bytes(3000))
    assert main(["convert-dvs", str(source), str(tmp_path / "npz"), "--workers", "1"]) == 0, capsys.readouterr().err
    reasons = _reasons(tmp_path / "npz" / "failed.csv")
    kinds = {name.partition("_")[0] for name in reasons}
    assert {"sparse", "noise", "fifo", "empty"} <= kinds and "good" not in kinds
    assert "30.0 GiB exceeds the limit of 2 GiB" in reasons["sparse_f"]
    assert len(list((tmp_path / "npz").glob("good_*.npz"))) == 5


def test_a_recording_cut_off_during_a_run_fails(tmp_path: Path) -> None:
    """The file was longer when the index was read; its headers still state the old sizes."""
    write_folder(tmp_path / "data")
    write_recording(tmp_path / "data" / "a" / "008.npz", 5000, 1)
    os.truncate(tmp_path / "data" / "a" / "008.npz", 3000)
    done = run_net([*event_settings(tmp_path / "data", tmp_path / "out"), "TRAIN.ENABLE", False])
    assert done.returncode == 0, done.stderr
    assert _reasons(tmp_path / "out" / "failed.csv").keys() == {"008"}
