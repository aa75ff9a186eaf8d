"""Clusters of events: k-means per polarity, files, and samples for networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.dataset import EventSampling, Repairs
from slowfast.datasets.dvs.recording import Opening, read_clusters
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.types import Record
from slowfast.prepare.cluster_dvs import cluster_events, cluster_recordings
from tests.event_files import SENSOR, write_recording


def test_separate_groups_become_one_cluster_each() -> None:
    rng = np.random.default_rng(0)
    groups = [(2, 3, 1e4, 1, 40), (12, 9, 4e4, 1, 20), (7, 5, 8e4, 0, 20)]  # x, y, t, p, events
    rows = [np.array([[x, y, t + rng.uniform(0, 10), p] for _ in range(n)]) for x, y, t, p, n in groups]
    rows = [*rows, np.array([[2, 3, 0, 1], [7, 5, 1e5, 0]])]  # first and last event of the recording
    x, y, t, p = np.concatenate(rows)[np.argsort(np.concatenate(rows)[:, 2])].T
    found = cluster_events(EventColumns(x.astype(int), y.astype(int), t, p.astype(int)), SENSOR, 5)
    assert found.intensity is not None and sorted(found.intensity) == [1, 1, 20, 20, 40]
    big = found.take(np.flatnonzero(found.intensity == 40))
    assert np.allclose([big.x[0], big.y[0], big.t[0], big.p[0]], [2, 3, 0.1, 1], atol=1e-3)
    assert (np.diff(found.t) >= 0).all() and found.t[-1] == 1.0


def test_files_and_samples(tmp_path: Path) -> None:
    source, target = tmp_path / "events", tmp_path / "clusters"
    write_recording(source / "train" / "a" / "long.npz", 200, 0)
    write_recording(source / "train" / "a" / "short.npz", 9, 1)
    (source / "train" / "a" / "broken.npz").write_bytes(b"x" * 100)
    result = cluster_recordings(source, target, SENSOR, 16, 1e-6, 1)
    assert result.done == 2 and list(result.failed) == ["train/a/broken.npz"]
    long, short = (target / "train" / "a" / name for name in ("long.npz", "short.npz"))
    clusters = read_clusters(long, SENSOR)
    assert len(clusters) == 16 and clusters.intensity.sum() == 200 and (clusters.x != np.rint(clusters.x)).any()
    assert len(read_clusters(short, SENSOR)) == 9 and (read_clusters(short, SENSOR).intensity == 1).all()
    sampling = EventSampling(Opening(SENSOR), 16, "random_sample", "sample", 0.0, clusters=True)
    [one, other] = sampling.draw(Record(0, short, "short", 0), [(0,), (1,)], Repairs())
    sample = sampling.finish(one)
    assert one is other and len(sample["intensity"]) == 16 and sample["valid"].sum() == 9
    assert sample["x"].dtype == np.int64 and sample["intensity"].dtype == np.float32
    assert cluster_recordings(source, target, SENSOR, 16, 1e-6, 1).skipped == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"intensity": None}, "missing intensity: not a file of clusters"),
        ({"x": np.array([1.0, 99.0])}, "must lie on the sensor of 12 x 16"),
        ({"t": np.array([0.0, np.nan])}, "finite times"),
        ({"p": np.array([0, 3])}, "p contains 3"),
        ({"intensity": np.array([0.0, 1.0])}, "intensities of at least 1"),
        ({"t": np.array([0.0])}, "of equal length"),
        ({"x": np.array(["a", "b"])}, "must be numbers"),
    ],
)
def test_other_files_are_refused(changed: dict, message: str, tmp_path: Path) -> None:
    columns = {"x": [1.5, 2.5], "y": [0.0, 11.0], "t": [0.0, 1.0], "p": [0, 1], "intensity": [3.0, 1.0], **changed}
    file = tmp_path / "c.npz"
    np.savez(file, **{key: value for key, value in columns.items() if value is not None})
    with pytest.raises(DecodeError, match=message):
        read_clusters(file, SENSOR)
    file.write_bytes(b"damaged")
    with pytest.raises(DecodeError, match="not a readable .npz file"):
        read_clusters(file, SENSOR)
