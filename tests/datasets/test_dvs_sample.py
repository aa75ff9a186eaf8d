"""Event samplers and time normalization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.dvs.sample import SAMPLERS, choose, get_sampler, normalize_time
from slowfast.errors import ConfigError

NAMES = [*SAMPLERS, "random_chunk_sample_1", "random_chunk_sample_16", "random_chunk_sample_500"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestSamplers:
    @settings(deadline=None, max_examples=60)
    @given(name=st.sampled_from(NAMES), n=st.integers(1, 400), share=st.floats(0.01, 1), seed=st.integers(0, 99))
    def test_samples_are_ascending_and_reproducible(self, name: str, n: int, share: float, seed: int) -> None:
        k = max(1, int(n * share))
        rows = get_sampler(name)(n, k, rng(seed))
        assert rows.shape == (k,) and rows.dtype == np.int64
        assert rows[0] >= 0 and rows[-1] < n and (np.diff(rows) >= 0).all()
        assert np.array_equal(rows, get_sampler(name)(n, k, rng(seed)))

    def test_random_samples_are_distinct(self) -> None:
        assert (np.diff(get_sampler("random_sample")(100, 90, rng())) > 0).all()
        many = np.concatenate([get_sampler("random_sample")(100, 10, rng(seed)) for seed in range(300)])
        assert np.bincount(many, minlength=100).min() > 10  # 30 each on average

    def test_chunks_are_consecutive(self) -> None:
        rows = get_sampler("random_chunk_sample_8")(10_000, 32, rng())
        assert (np.diff(rows.reshape(4, 8)) == 1).all()

    def test_deterministic_samples_are_evenly_spaced(self) -> None:
        assert get_sampler("deterministic_uniform_sample")(101, 5, rng()).tolist() == [0, 25, 50, 75, 100]

    def test_gaussians(self) -> None:
        one = get_sampler("gaussian_sample")(10_000, 3000, rng())
        assert abs(one.mean() - 5000) < 200 and abs(one.std() - 2400) < 200  # clipping makes it slightly less than 2500
        each = get_sampler("multivariate_gaussian_sample")(10_000, 100, rng())
        assert np.abs(each - np.arange(100) * 100).max() < 130

    def test_all_events_are_used_if_there_are_few(self) -> None:
        for k in (0, 10, 11):
            assert choose(get_sampler("uniform_sample"), 10, k, rng()) == slice(None)
        assert len(choose(get_sampler("uniform_sample"), 10, 9, rng())) == 9

    @pytest.mark.parametrize("name", ["random", "random_chunk_sample", "random_chunk_sample_0"])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(ConfigError, match="DVS.SAMPLER.*random_chunk_sample_n"):
            get_sampler(name)


def test_time_normalization() -> None:
    t = np.array([100.0, 150.0, 300.0])
    for norm, want in (("none", [0, 50, 200]), ("sample", [0, 0.25, 1]), ("dataset", [0, 0.125, 0.5])):
        found = normalize_time(t, norm, 400.0)
        assert found.dtype == np.float32 and found.tolist() == want
    assert normalize_time(np.array([7.0, 7.0]), "sample", 0.0).tolist() == [0, 0]
