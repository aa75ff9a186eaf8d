"""Reader of the .mat files of ASL-DVS (Bi et al., ICCV 2019)."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.streams import EventStream, check_raw_size
from slowfast.datasets.dvs.recording import check_count
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import UserError

SENSOR = (180, 240)  # height, width
KEYS = ("x", "y", "ts", "pol")


def read_mat(path: Path) -> list[EventStream]:
    """Read a file of ASL-DVS with the variables x, y, ts (microseconds) and pol.

    The recordings of the dataset are rotated by 180 degrees. They are rotated back (x' = 239 - x, y' = 179 - y), as in
    SpikingJelly's conversion, on which the published Event2Vec weights were trained.

    Raises:
        DecodeError: If it is not such a file.
        UserError: If SciPy is not installed.
    """
    check_raw_size(path)
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise UserError(f'.mat files need SciPy ({error}). Run pip install "slowfast[events]"') from error
    try:
        sizes = {name: prod(shape) for name, shape, _ in whosmat(path)}  # from the headers, without decompression
        check_count(max((sizes.get(key, 0) for key in KEYS), default=0))
        content = loadmat(path, variable_names=KEYS)
    except DecodeError:
        raise
    except NotImplementedError as error:  # HDF5
        raise DecodeError(
            "MATLAB 7.3 files (HDF5) are not supported. Load it in MATLAB and run "
            "save(name, 'x', 'y', 'ts', 'pol', '-v7')"
        ) from error
    except Exception as error:  # SciPy raises various errors for damaged files
        raise DecodeError(f"not a readable .mat file: {error}") from error
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise DecodeError(f"missing {', '.join(missing)}. Expected a file of ASL-DVS with {', '.join(KEYS)}")
    x, y, t, p = (np.asarray(content[key]).ravel() for key in KEYS)
    if len({len(column) for column in (x, y, t, p)}) > 1 or any(c.dtype.kind not in "iufb" for c in (x, y, t, p)):
        raise DecodeError(f"{', '.join(KEYS)} must be numeric and of equal length")
    if not np.isfinite(t).all():
        raise DecodeError("ts contains values that are not finite")
    height, width = SENSOR
    columns, lines = width - 1 - _pixels(x, width, "x"), height - 1 - _pixels(y, height, "y")
    return [EventStream(EventColumns(columns, lines, t.astype(np.float64), (p > 0).astype(np.int64)), SENSOR)]


def _pixels(values: np.ndarray, size: int, name: str) -> np.ndarray:
    """Return coordinates as int64; raise DecodeError if any is outside of the sensor."""
    wrong = values[~((values >= 0) & (values < size) & (values == np.rint(values)))]
    if len(wrong):
        raise DecodeError(f"{name} contains {wrong[0]}; expected integers from 0 to {size - 1}")
    return values.astype(np.int64)
