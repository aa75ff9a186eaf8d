"""Damaged files: every changed byte is detected or leaves the values unchanged."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.utils.checkpoint_files.read import read_paddle_file, read_torch_file


def content() -> dict[str, Any]:
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    return {"model": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(3), "epoch": 2}


def values(read: dict[str, Any]) -> str:
    """Return everything that was read as text."""
    state = [
        (key, str(value.dtype), tuple(value.shape), value.numpy().tobytes()) for key, value in read["model"].items()
    ]
    return repr((list(read), state, read["args"], read["best"], read["epoch"]))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str, Path]:
    """Bytes of a file, its values, and a place for changed copies."""
    path = tmp_path_factory.mktemp("damage") / "a.pth"
    torch.save(content(), path)
    return path.read_bytes(), values(read_torch_file(path)), path.with_name("changed.pth")


def check(changed: bytes, want: str, path: Path) -> bool:
    """Return whether the file is rejected; check that an accepted file has the same values."""
    path.write_bytes(changed)
    try:
        read = read_torch_file(path)
    except DamagedFileError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    assert values(read) == want
    return False


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2**30), mask=st.integers(1, 255))
def test_a_changed_byte_never_changes_a_value(written: tuple[bytes, str, Path], place: int, mask: int) -> None:
    data, want, path = written
    changed = bytearray(data)
    changed[place % len(data)] ^= mask
    check(bytes(changed), want, path)


def test_every_bit_of_the_directory_counts(written: tuple[bytes, str, Path]) -> None:
    data, want, path = written
    start = data.index(b"PK\x01\x02")
    refused = 0
    for place in range(start, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        refused += check(bytes(changed), want, path)
    assert refused > 100


def test_a_changed_bit_of_a_tensor_names_the_checksum(written: tuple[bytes, str, Path]) -> None:
    data, _, path = written
    weight = np.float32(1).tobytes() * 4  # of the batch normalization
    changed = bytearray(data)
    changed[data.index(weight)] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DamagedFileError, match=r"is damaged: the checksum of .*/data/\d+ is wrong"):
        read_torch_file(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 2**30), size=st.integers(1, 600), kind=st.sampled_from(["zero", "cut", "double", "end"]))
def test_larger_damage(written: tuple[bytes, str, Path], start: int, size: int, kind: str) -> None:
    data, want, path = written
    start %= len(data)
    stop = min(start + size, len(data))
    changed = {
        "zero": data[:start] + bytes(stop - start) + data[stop:],
        "cut": data[:start] + data[stop:],
        "double": data[:stop] + data[start:],
        "end": data[:start],
    }[kind]
    refused = check(changed, want, path)
    assert refused or kind != "end"


@pytest.mark.parametrize("legacy", [True, False])
def test_every_truncation_of_files_without_checksums_is_noticed(legacy: bool, tmp_path: Path) -> None:
    path, read = tmp_path / "a", read_torch_file if legacy else read_paddle_file
    if legacy:
        torch.save(content(), path, _use_new_zipfile_serialization=False)
    else:
        arrays = {key: value.numpy() for key, value in content()["model"].items()}
        path.write_bytes(pickle.dumps(arrays, protocol=4))
    data = path.read_bytes()
    read(path)
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedFileError, match="cannot be read as"):
            read(path)


def test_damage_of_files_without_checksums_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(content(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for place in range(0, len(data), 5):
        changed = bytearray(data)
        changed[place] ^= 0x41
        path.write_bytes(changed)
        try:
            read_torch_file(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
