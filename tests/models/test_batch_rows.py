"""Draws for the whole batch, and the layers that use them."""

from __future__ import annotations

import pytest
import torch

from slowfast.models.layers import DropPath, draw_uniform, global_batch


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_processes_together_draw_what_one_process_draws(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    whole = draw_uniform(8, *shape)
    assert whole.shape == (8, *shape)
    parts = []
    for rows in ([0, 1, 6, 7], [2, 3, 4, 5]):
        torch.manual_seed(0)
        with global_batch(8, rows):
            parts.append((rows, draw_uniform(4, *shape)))
    for rows, part in parts:
        assert torch.equal(part, whole[rows])


def test_the_context_ends_and_nests() -> None:
    with global_batch(4, [0]):
        with global_batch(6, [1, 2]):
            assert len(draw_uniform(2)) == 2
        assert len(draw_uniform(1)) == 1
    assert len(draw_uniform(3)) == 3


def test_a_batch_that_does_not_match_its_rows_is_refused() -> None:
    with global_batch(8, [0, 1]), pytest.raises(ValueError, match="3 clips"):
        draw_uniform(3)


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
