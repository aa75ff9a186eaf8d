"""The .mat files of ASL-DVS (Bi et al., ICCV 2019)."""

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
    """A file of ASL-DVS: x, y, ts (microseconds), pol. Raises DecodeError; UserError without SciPy.

    The data set's pictures lie half turned in its files: they are turned upright (x' = 239 - x, y' = 179 - y), as
    SpikingJelly's conversion does, which the published Event2Vec weights were trained on.
    """
    check_raw_size(path)
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise UserError(f'.mat files need SciPy ({error}): pip install "slowfast[events]"') from error
    try:
        sizes = {name: prod(shape) for name, shape, _ in whosmat(path)}  # of the headers: nothing is unpacked
        check_count(max((sizes.get(key, 0) for key in KEYS), default=0))
        content = loadmat(path, variable_names=KEYS)
    except DecodeError:
        raise
    except NotImplementedError as error:  # HDF5
        raise DecodeError(
            "it is a MATLAB 7.3 file (HDF5), which is not read; load it in MATLAB, then save(name, 'x', 'y', 'ts', "
            "'pol', '-v7')"
        ) from error
    except Exception as error:  # SciPy raises many kinds for a damaged file
        raise DecodeError(f"it cannot be read as a .mat file ({error})") from error
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise DecodeError(f"it has no {', '.join(missing)}; a .mat file of ASL-DVS with {', '.join(KEYS)} is expected")
    x, y, t, p = (np.asarray(content[key]).ravel() for key in KEYS)
    if len({len(column) for column in (x, y, t, p)}) > 1 or any(c.dtype.kind not in "iufb" for c in (x, y, t, p)):
        raise DecodeError(f"{', '.join(KEYS)} must be numbers, as many of each")
    if not np.isfinite(t).all():
        raise DecodeError("ts holds values that are no times")
    height, width = SENSOR
    columns, lines = width - 1 - _pixels(x, width, "x"), height - 1 - _pixels(y, height, "y")
    return [EventStream(EventColumns(columns, lines, t.astype(np.float64), (p > 0).astype(np.int64)), SENSOR)]


def _pixels(values: np.ndarray, size: int, name: str) -> np.ndarray:
    """Places on the sensor, int64; DecodeError where there are others."""
    wrong = values[~((values >= 0) & (values < size) & (values == np.rint(values)))]
    if len(wrong):
        raise DecodeError(f"{name} holds {wrong[0]}: ASL-DVS has whole numbers from 0 to {size - 1}")
    return values.astype(np.int64)
