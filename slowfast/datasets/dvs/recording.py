"""Opening .npz and .npy files of events without reading what is not asked for.

.npz     arrays x, y, t, p (or one structured array); stored without compression they are mapped into memory
.npy     one structured array with fields x, y, t, p; mapped

n events of a recording.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError

SUFFIXES = (".npz", ".npy")
# Other names that a column has in public data sets.
NAMES = {
    "x": ("x",),
    "y": ("y",),
    "t": ("t", "ts", "timestamp", "timestamps", "time"),
    "p": ("p", "pol", "polarity", "polarities"),
}
NEEDED = "x, y, t, p are needed"
_LOCAL_HEADER = 30  # bytes of a member's own header in a zip file, before its name


class Recording:
    """The columns x, y, t, p of a file as they lie there, of any numeric type; nothing is read before `take`."""

    def __init__(self, path: Path) -> None:
        """Raises DecodeError where the file is missing, damaged, or holds no such columns."""
        try:
            columns = _open_npz(path) if path.suffix.lower() == ".npz" else _fields(np.load(path, mmap_mode="r"))
        except DecodeError:
            raise
        except FileNotFoundError as error:
            raise DecodeError("the file does not exist") from error
        except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
            raise DecodeError(f"the file cannot be read as {path.suffix} ({_first_line(error)})") from error
        self.columns = _named(columns)
        lengths = {key: column.shape for key, column in self.columns.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            raise DecodeError(f"x, y, t and p must be of one dimension and equally long, not {lengths}")
        self.n = len(self.columns["t"])
        if self.n == 0:
            raise DecodeError("it holds no events")

    def take(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """These events' columns, read now: all of them in one go, single ones without what lies beside them."""
        scattered = isinstance(rows, np.ndarray)
        for column in self.columns.values():
            _announce(column, scattered)
        return {key: np.array(column[rows]) for key, column in self.columns.items()}


def _announce(column: np.ndarray, scattered: bool) -> None:
    """Tell the system how a mapped file will be read: by default it reads far more than a page that is asked for."""
    mapped = getattr(column, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_RANDOM if scattered else mmap.MADV_NORMAL)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _named(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns x, y, t, p of those found."""
    lower = {name.lower(): column for name, column in columns.items()}
    found = {key: next((lower[name] for name in names if name in lower), None) for key, names in NAMES.items()}
    missing = [key for key, column in found.items() if column is None]
    if missing:
        raise DecodeError(f"it has no {', '.join(missing)}, only {', '.join(columns) or 'nothing'}; {NEEDED}")
    for key, column in found.items():
        if column is not None and column.dtype.kind not in "iufb":
            raise DecodeError(f"{key} holds {column.dtype}, not numbers")
    return {key: column for key, column in found.items() if column is not None}


def _fields(array: np.ndarray) -> dict[str, np.ndarray]:
    """A structured array's columns."""
    if array.dtype.names is None:
        raise DecodeError(f"an array {array.shape} of {array.dtype} has no names for its columns; {NEEDED}")
    return {name: array[name] for name in array.dtype.names}


def _open_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as file:
        arrays = {info.filename.removesuffix(".npy"): _member(path, file, info) for info in file.infolist()}
    if len(arrays) == 1:
        only = next(iter(arrays.values()))
        return _fields(only) if only.dtype.names is not None else arrays
    return arrays


def _member(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of a .npz file: mapped where it is stored as it is, else read."""
    with file.open(info) as stream:
        if info.compress_type != zipfile.ZIP_STORED:
            return npy.read_array(stream, allow_pickle=False)
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, in_columns, dtype = header(stream)
        start = stream.tell()
    if dtype.hasobject:
        raise DecodeError(f"{info.filename} holds Python objects, which are never read")
    offset = _data_offset(path, info) + start
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape, order="F" if in_columns else "C")


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin in the file: after its own header, whose lengths only it tells."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)
