"""Clustering of event recordings by k-means, as in Event2Vec v3 (arXiv 2504.15371 v3).

Notation: n events of a recording.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.formats import event_suffixes
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import clean_events
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.prepare.jobs import Conversion, ConvertedFile, FileKind, Job, convert_files, target_exists
from slowfast.utils.files import atomic_path
from slowfast.utils.imports import import_extra
from slowfast.utils.ray_cluster import LOCAL


def cluster_events(events: EventColumns, sensor: tuple[int, int], clusters: int) -> EventColumns:
    """Return the centers of clusters in x, y and time, separately for each polarity.

    Coordinates are scaled to [0, 1] for the clustering: x and y by the sensor, time by the duration. Each polarity gets
    its share of the clusters. A recording with no more events than clusters is returned unchanged.

    Args:
        events: Events of a recording.
        sensor: Sensor height and width in pixels.
        clusters: Number of clusters.

    Returns:
        Centers in ascending order of time, x and y in pixels, t in [0, 1], with the number of events of each.
    """
    t = events.t - events.t[0]
    events = replace(events, t=t / t[-1] if t[-1] > 0 else t)
    if len(events) <= clusters:
        return replace(events, intensity=np.ones(len(events)))
    size = np.array([sensor[1] - 1, sensor[0] - 1, 1.0]).clip(1.0)
    points = np.stack([events.x, events.y, events.t], 1) / size
    on = events.p == 1
    number_on = int(on.mean() * clusters)
    centers, counts, polarities = [], [], []
    for polarity, chosen, number in ((1, points[on], number_on), (0, points[~on], clusters - number_on)):
        number = min(number, len(chosen))
        if number:
            found, count = _k_means(chosen, number)
            centers.append(found * size)
            counts.append(count)
            polarities.append(np.full(len(found), polarity))
    x, y, t = np.concatenate(centers).T
    return EventColumns(x, y, t, np.concatenate(polarities), np.concatenate(counts).astype(np.float64)).at(t)


def _k_means(points: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centers of the non-empty clusters, (K, 3), and the number of points of each, (K,)."""
    cluster = import_extra("sklearn.cluster", "events", "slowfast cluster-dvs")
    found = cluster.KMeans(number, random_state=0, n_init="auto").fit(points)
    counts = np.bincount(found.labels_, minlength=number)
    return found.cluster_centers_[counts > 0], counts[counts > 0]


def cluster_recordings(
    source: Path,
    target: Path,
    sensor: tuple[int, int],
    clusters: int,
    time_unit: float,
    workers: int,
    engine: str = LOCAL,
) -> Conversion:
    """Cluster all recordings below `source` into .npz files below `target`; complete ones are kept.

    Args:
        source: Folder of recordings, of any registered format.
        target: Folder to write to, outside of `source`.
        sensor: Sensor height and width in pixels.
        clusters: Clusters per recording.
        time_unit: Duration of a timestamp tick in seconds, for formats that do not state it.
        workers: Number of worker processes.
        engine: `LOCAL` or `RAY`, see :func:`~slowfast.prepare.jobs.run_jobs`.

    Raises:
        UserError: If a folder is unsuitable or the files cannot be written.
        DataError: If no recording can be read.
    """
    work = partial(_cluster_one, sensor, clusters, time_unit)
    return convert_files(
        work,
        source,
        target,
        workers,
        is_done=target_exists,
        target_suffix=".npz",
        verb="clustered",
        kind=FileKind("recordings", event_suffixes()),
        engine=engine,
    )


def _cluster_one(sensor: tuple[int, int], clusters: int, time_unit: float, job: Job) -> ConvertedFile:
    recording = Recording(job.source)
    events, repairs = clean_events(recording.take(slice(None)), sensor, recording.time_unit(time_unit))
    found = cluster_events(events, sensor, clusters)
    assert found.intensity is not None
    x, y, t, intensity = (values.astype(np.float32) for values in (found.x, found.y, found.t, found.intensity))
    with atomic_path(job.target) as part, part.open("wb") as opened:
        np.savez(opened, x=x, y=y, t=t, p=found.p.astype(np.uint8), intensity=intensity)
    return ConvertedFile("; ".join(recording.damage) or None, tuple(repairs))
