"""Demo event recordings: readable by the dataset, with classes that only times distinguish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo_data.build import build
from demo_data.events import draw_path_in_view
from demo_data.formats import FORMATS, Sample
from demo_data.scene import MOTIONS
from demo_data.settings import DemoSettings
from slowfast.datasets.dvs.formats.columns import StoredColumn
from slowfast.datasets.dvs.index import read_event_class_names, read_event_index
from slowfast.datasets.dvs.recording import Recording, as_events

SETTINGS = DemoSettings(format="events", train=8, val=8, test=8, size=32, frames=6)


def test_the_folder_reads_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    assert build(folder, SETTINGS, workers=1).samples == 24
    assert read_event_class_names(folder, 8) == list(MOTIONS)
    for split in ("train", "val", "test"):
        records = read_event_index(folder, split, 8)
        assert sorted(record.label for record in records) == list(range(8))
        for record in records:
            recording = Recording(record.path)
            events = as_events(recording.take(slice(None)), (32, SETTINGS.width), 1e-6)
            assert events is not None and len(events) > 50 and set(events.p) == {0, 1}
            assert 0 <= events.t[0] and events.t[-1] <= 1e6 * 6 / 30
            assert all(isinstance(column, StoredColumn) for column in recording.columns.values())


def test_the_same_seed_gives_the_same_events(tmp_path: Path) -> None:
    for name in ("one", "two"):
        FORMATS["events"].write_sample(tmp_path / name, SETTINGS, Sample("train", 3, 3, "down"))
    (one,), (two,) = (list((tmp_path / name).rglob("*.npz")) for name in ("one", "two"))
    assert one.name == "00003.npz" and one.parent.name == "down"
    assert all(np.array_equal(np.load(one)[key], np.load(two)[key]) for key in "xytp")


@pytest.mark.parametrize(("name", "opposite"), [("left", "right"), ("clockwise", "counter-clockwise"), ("up", "down")])
def test_backwards_is_the_opposite_class(name: str, opposite: str) -> None:
    one, other = (draw_path_in_view(MOTIONS[key], 9, 48, 56, np.random.default_rng(0)) for key in (name, opposite))
    if name == "clockwise":  # another start of the turn is as likely
        steps = np.diff(one.center, axis=0)
        turns = steps[:-1, 1] * steps[1:, 0] - steps[:-1, 0] * steps[1:, 1]
        assert (turns > 0).all() and np.allclose(np.diff(one.angle), -np.diff(other.angle))
    else:
        np.testing.assert_allclose(one.center[::-1], other.center)


def test_objects_stay_in_view() -> None:
    for motion in MOTIONS.values():
        for seed in range(50):
            path = draw_path_in_view(motion, 9, 48, 56, np.random.default_rng(seed))
            assert (path.center > 0).all() and (path.center < (48, 56)).all()


def test_the_usual_settings_are_few_megabytes() -> None:
    default = FORMATS["events"].default
    assert default.train + default.val + default.test < 1600  # some 30 kB each
