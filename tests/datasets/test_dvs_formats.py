"""Registry of formats, files with several streams, and counters that overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.dataset import EventSampling, Repairs
from slowfast.datasets.dvs.formats import EVENT_READER_REGISTRY, EventBlock, EventReader, open_events
from slowfast.datasets.dvs.formats.blocks import TimeUnwrapper
from slowfast.datasets.dvs.frames import EventFramesReader
from slowfast.datasets.dvs.measure import duration
from slowfast.datasets.dvs.recording import Opening, Recording
from slowfast.datasets.types import Record
from tests.raw_recordings import COLUMNS, EVENTS, aedat4, events_of, rows


def test_one_of_several_streams(tmp_path: Path) -> None:
    """Choose a stream in every way of reading; a file with one stream needs no name."""
    file, record = tmp_path / "a.aedat4", Record(0, tmp_path / "a.aedat4", "a", 0)
    file.write_bytes(aedat4([EVENTS[:200], EVENTS[200:]]))
    sensor, times = (200, 300), [event[2] for event in EVENTS[200:]]
    assert rows(Recording(file, "stream1").take(slice(None))) == EVENTS[200:]
    sampling = EventSampling(Opening(sensor, stream="stream1"), 0, "random_sample", "none", 0.0)
    (sample,) = sampling.draw(record, [(0,)], Repairs())
    assert sample.t.tolist() == times
    assert duration(file, Opening(sensor, stream="stream1")) == times[-1] - times[0]
    reader = EventFramesReader(file, sensor, 1e-6, 2, "counts", 1.0, stream="stream1")
    assert reader.events.t.tolist() == times
    np.savez(tmp_path / "b.npz", **COLUMNS)
    assert Recording(tmp_path / "b.npz", "stream1").n == len(EVENTS)


def test_users_can_register_a_format(tmp_path: Path) -> None:
    class Mine(EventReader):
        suffixes, label = (".mine",), "my format"

        def blocks(self, stream: int = 0):  # type: ignore[no-untyped-def]
            values = np.array([[int(word) for word in line.split()] for line in self.path.read_text().splitlines()])
            yield EventBlock(values[:, 2], values[:, 0], values[:, 1], values[:, 3].astype(np.uint8))

    EVENT_READER_REGISTRY.register(Mine, name="mine")
    try:
        (tmp_path / "a.mine").write_text("\n".join(" ".join(map(str, event)) for event in EVENTS))
        assert events_of(tmp_path / "a.mine") == EVENTS
    finally:
        del EVENT_READER_REGISTRY._obj_map["mine"]
    with pytest.raises(DecodeError, match=r"unknown suffix. Event recordings end in .aedat"):
        open_events(tmp_path / "a.mine")


@pytest.mark.parametrize("size", [1, 7, 400])
def test_overflows_are_undone_block_by_block(size: int) -> None:
    whole = np.cumsum(np.random.default_rng(0).integers(0, 2**31, 300)) + 2**32 - 5
    whole[10:20] = whole[10:20][::-1]  # late events
    unwrap = TimeUnwrapper(32)
    parts = [unwrap((whole[at : at + size] % 2**32).astype(np.uint32)) for at in range(0, 300, size)]
    found = np.concatenate(parts)
    assert np.array_equal(np.diff(found)[25:], np.diff(whole)[25:])
