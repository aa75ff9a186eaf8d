"""Expected calibration error: difference between the confidence of predictions and their accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 15  # as in the tables of the paper


def calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """Return the expected calibration error in percent; NaN without samples.

    Samples are sorted into bins of equal width by their confidence. The result is the mean over the samples of
    |accuracy - mean confidence| of their bin (Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3).

    Args:
        confidences: Score of the predicted class of each sample, in [0, 1].
        correct: Whether each prediction is correct.
        bins: Number of bins; bin b holds the confidences in (b / bins, (b + 1) / bins], the first one also 0.
    """
    if not len(confidences):
        return float("nan")
    scores = np.asarray(confidences, np.float64)
    upper_ends = np.arange(1, bins + 1) / bins
    bin_of = np.searchsorted(upper_ends, scores, side="left").clip(max=bins - 1)
    gaps = np.bincount(bin_of, np.asarray(correct, np.float64) - scores, minlength=bins)
    return float(100.0 * np.abs(gaps).sum() / len(scores))
