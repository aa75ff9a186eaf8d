"""Percentiles of latencies in constant memory."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slowfast.event_driven.latency import LatencyHistogram

LATENCIES = st.lists(st.lists(st.floats(1e-4, 1e3), max_size=20), min_size=1, max_size=4)


@given(LATENCIES, st.sampled_from([0, 1, 50, 95, 99, 100]))
def test_percentiles_are_those_of_all_sources(sources: list[list[float]], percent: float) -> None:
    parts = []
    for seconds in sources:
        parts.append(LatencyHistogram())
        parts[-1].add(np.array(seconds))
    total, everything = LatencyHistogram.total(parts), sum(sources, [])
    assert len(total) == len(everything)
    found = total.percentile(percent)
    if everything:
        expected = np.quantile(everything, percent / 100, method="inverted_cdf")
        assert abs(found / expected - 1) < 0.0101
    else:
        assert math.isnan(found)


def test_extreme_latencies_are_counted() -> None:
    histogram = LatencyHistogram()
    histogram.add(np.array([-1.0, 0.0, 1e9]))
    assert len(histogram) == 3 and histogram.percentile(50) < 1.1e-4 and histogram.percentile(100) > 9e3
