"""Random numbers for the global batch, and the layers that use them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from slowfast.models.layers import Dropout, DropPath, frames_as_batch, global_batch, shared_sampler


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_processes_together_draw_what_one_process_draws(shape: tuple[int, ...]) -> None:
    layer = Dropout(0.5)
    torch.manual_seed(0)
    all_rows = layer.sampler.uniform(8, *shape)
    assert all_rows.shape == (8, *shape)
    parts = []
    for rows in ([0, 1, 6, 7], [2, 3, 4, 5]):
        torch.manual_seed(0)
        with global_batch(layer, 8, rows):
            parts.append((rows, layer.sampler.uniform(4, *shape)))
    for rows, part in parts:
        assert torch.equal(part, all_rows[rows])


def test_the_context_ends_and_nests() -> None:
    layer = Dropout(0.5)
    with global_batch(layer, 4, [0]):
        with global_batch(layer, 6, [1, 2]):
            assert len(layer.sampler.uniform(2)) == 2
        assert len(layer.sampler.uniform(1)) == 1
    assert len(layer.sampler.uniform(3)) == 3


def test_a_batch_that_does_not_match_its_rows_is_refused() -> None:
    layer = Dropout(0.5)
    with global_batch(layer, 8, [0, 1]), pytest.raises(ValueError, match="3 samples"):
        layer.sampler.uniform(3)


def test_all_layers_of_a_model_share_a_sampler_and_other_models_do_not() -> None:
    model, other = nn.Sequential(Dropout(0.5), nn.Sequential(DropPath(0.1))), Dropout(0.5)
    sampler = shared_sampler(model)
    assert model[0].sampler is sampler is model[1][0].sampler and shared_sampler(model[1]) is sampler
    with global_batch(model, 4, [0]):
        assert other.sampler.batch_rows is None
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin[0].sampler is twin[1][0].sampler is not sampler


def test_frames_have_the_rows_of_their_clips() -> None:
    layer = Dropout(0.5)
    with global_batch(layer, 3, [2, 0]), frames_as_batch(layer, 2):
        assert layer.sampler.batch_rows is not None
        assert (layer.sampler.batch_rows.total, layer.sampler.batch_rows.rows) == (6, (4, 5, 0, 1))
    with frames_as_batch(layer, 2):
        assert layer.sampler.batch_rows is None


def test_drop_path_keeps_or_drops_whole_clips_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    x, branch = torch.zeros(4000, 2, 3), torch.ones(4000, 2, 3)
    out = layer(x, branch)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert torch.equal(out.amin((1, 2)), out.amax((1, 2)))
    assert abs(out.mean() - 1) < 0.03


def test_drop_path_is_a_plain_sum_in_evaluation() -> None:
    x, branch = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.equal(DropPath(0.9).eval()(x, branch), x + branch)
    assert torch.equal(DropPath(0.0).train()(x, branch), x + branch)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_drop_path_refuses_impossible_rates(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        DropPath(rate)
