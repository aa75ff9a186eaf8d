"""EMA of the weights and precise batch-norm statistics against plain implementations."""

from __future__ import annotations

import torch
from torch import nn

from slowfast.engine.averaging import ModelEMA, recompute_bn_stats
from slowfast.utils.distributed import World


def test_average_follows_the_formula() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = ModelEMA(model, decay=0.9)
    expected = model[0].weight.detach().clone()
    for _ in range(5):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(3, 2))
        model(torch.randn(4, 2))  # moves batch norm's statistics and counter
        average.update(model)
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
    torch.testing.assert_close(average.model[0].weight, expected)
    assert average.model[1].num_batches_tracked == model[1].num_batches_tracked
    assert not any(p.requires_grad for p in average.model.parameters())
    assert not average.model.training


def test_precise_statistics_are_means_over_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    batches = [torch.randn(8, 3) * 3 + 1 for _ in range(6)]
    model(torch.full((8, 3), 100.0))  # spoils the running statistics
    model.train()
    assert recompute_bn_stats(model, iter(batches), World()) == 6
    torch.testing.assert_close(model[0].running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(model[0].running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert model.training and model[0].momentum == 0.1


def test_a_network_without_batch_norm_needs_no_batches() -> None:
    assert recompute_bn_stats(nn.Linear(1, 1), iter([]), World()) == 0
