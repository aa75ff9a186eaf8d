"""Ensembling of views against NumPy; the methods differ where they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slowfast.engine.evaluate import Ensemble
from slowfast.errors import ConfigError


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("method", ["sum", "max"])
@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_against_numpy(method: str, on: str) -> None:
    views = np.random.default_rng(0).normal(size=(12, 7)) * 4
    join = np.mean if method == "sum" else np.max
    expected = softmax(join(views, axis=0)) if on == "logits" else join(softmax(views), axis=0)
    np.testing.assert_allclose(Ensemble(method, on)(torch.from_numpy(views)), expected, rtol=1e-12)


def test_one_view_is_its_softmax() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    for method in ("sum", "max"):
        torch.testing.assert_close(Ensemble(method)(logits), logits[0].double().softmax(0))


def test_unknown_ways() -> None:
    with pytest.raises(ConfigError, match="DATA.ENSEMBLE_METHOD: unknown value 'mean'. Choices: max, sum"):
        Ensemble("mean")
    with pytest.raises(ConfigError, match="TEST.ENSEMBLE_ON: unknown value 'scores'. Choices: logits"):
        Ensemble("sum", "scores")
