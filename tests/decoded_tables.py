"""Comparison of the two methods of finding the packets of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from slowfast.datasets.decode import DecodeError, packets
from slowfast.datasets.decode.pyav import PyAVReader


def compare_with_scan(path: Path, frames: Sequence[int] = ()) -> bool:
    """Check that sample tables give the packets of a scan and the same frames.

    Returns:
        Whether the sample tables were used.
    """
    found = []
    for fewest in (0, 2**40):
        with mock.patch.object(packets, "MIN_SAMPLES", fewest):
            try:
                found.append(PyAVReader(path))
            except DecodeError as error:
                found.append(str(error))
    tables, scan = found
    if isinstance(tables, str) or isinstance(scan, str):
        assert tables == scan
        return False
    with tables, scan:
        assert scan._source.is_scanned and (tables.fps, tables.truncation) == (scan.fps, scan.truncation)
        for name in ("rank", "frame_of", "packet_of", "last_of"):
            np.testing.assert_array_equal(getattr(tables._table, name), getattr(scan._table, name))
        np.testing.assert_array_equal(tables.times(), scan.times())
        one, other = tables._source._listed, scan._source._listed
        assert list(one.pts) == list(other.pts) and list(one.dts) == list(other.dts)
        assert set(tables._source._keys) <= set(scan._source._keys)
        assert tables._source.last_duration(tables._table) == scan._source.last_duration(scan._table)
        for number in frames:
            decoded, expected = tables.read([number]), scan.read([number])
            assert (decoded.missing, decoded.rows.tolist()) == (expected.missing, expected.rows.tolist())
            np.testing.assert_array_equal(decoded.frames, expected.frames)
        if frames:
            decoded, expected = (reader.read(np.arange(scan.num_frames)) for reader in (tables, scan))
            assert decoded.missing == expected.missing
            np.testing.assert_array_equal(decoded.frames, expected.frames)
        return not tables._source.is_scanned
