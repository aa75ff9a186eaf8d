"""Times as a network gets them."""

from __future__ import annotations

import numpy as np

NONE, SAMPLE, DATASET = "none", "sample", "dataset"
TIME_NORMS = (NONE, SAMPLE, DATASET)


def normalize_time(t: np.ndarray, norm: str, longest: float) -> np.ndarray:
    """Ascending times (microseconds) from the first on: float32, in units of the norm.

    longest: of the data set, microseconds, above 0; used by "dataset".
    """
    t = t - t[0]
    if norm == SAMPLE:
        t = t / t[-1] if t[-1] > 0 else t
    elif norm == DATASET:
        t = t / longest
    return t.astype(np.float32)
