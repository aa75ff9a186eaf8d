"""Files of event clusters: .npz with x, y (real numbers), t, p and intensity, the number of events of each cluster.

Notation: n clusters of a recording.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.dvs.sample import EventColumns

COLUMNS = ("x", "y", "t", "p", "intensity")
# Limit for all columns together, so that a small compressed file cannot exhaust the memory.
MAX_BYTES = 2**28


def read_clusters(path: Path, sensor: tuple[int, int]) -> EventColumns:
    """Read the clusters of a recording, in ascending order of time.

    Args:
        path: File written by ``slowfast cluster-dvs`` or the authors' code.
        sensor: Sensor height and width in pixels.

    Raises:
        DecodeError: If the file is missing, damaged or not a file of clusters.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > MAX_BYTES:
                raise DecodeError(f"more than {MAX_BYTES >> 20} MiB are not a file of clusters. Set DVS.CLUSTERS False")
        with np.load(path, allow_pickle=False) as content:
            missing = [name for name in COLUMNS if name not in content.files]
            if missing:
                raise DecodeError(f"missing {', '.join(missing)}: not a file of clusters. Set DVS.CLUSTERS False")
            x, y, t, p, intensity = (np.asarray(content[name]) for name in COLUMNS)
    except DecodeError:
        raise
    except Exception as error:  # NumPy and zipfile raise various errors for damaged files
        raise DecodeError(f"not a readable .npz file: {(str(error).splitlines() or [''])[0][:200]}") from error
    columns = (x, y, t, p, intensity)
    if any(column.ndim != 1 or column.dtype.kind not in "iufb" or len(column) != len(x) for column in columns):
        raise DecodeError("x, y, t, p and intensity must be numbers, one-dimensional and of equal length")
    if not len(x):
        raise DecodeError("the recording contains no events")
    x, y, t, intensity = (column.astype(np.float64) for column in (x, y, t, intensity))
    inside = (x >= 0) & (y >= 0) & (x <= sensor[1] - 1) & (y <= sensor[0] - 1)
    if not (inside & np.isfinite(t) & (intensity >= 1) & np.isfinite(intensity)).all():
        raise DecodeError(
            f"clusters must lie on the sensor of {sensor[0]} x {sensor[1]} pixels (DVS.SENSOR_SIZE), with finite times "
            "and intensities of at least 1"
        )
    if not np.isin(p, (0, 1)).all():
        raise DecodeError(f"p contains {p[~np.isin(p, (0, 1))][0]}; polarities of clusters are 0 and 1")
    return EventColumns(x, y, t, p.astype(np.int64), intensity).at(t)
