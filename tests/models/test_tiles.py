"""Piece by piece without gradients, all at once with them: the same numbers."""

from __future__ import annotations

import pytest
import torch

from slowfast.models import layers
from slowfast.models.batch_rows import global_batch
from slowfast.models.layers import in_tiles
from slowfast.models.morphmlp import MorphMLP


def test_pieces_are_of_one_clip_and_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(2 * 3 * 5 * 4.0).view(2, 3, 5, 4)
    scale = torch.tensor([[2.0], [3.0]])  # a number a clip
    seen = []

    def product(part: torch.Tensor, same: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        assert part.shape == same.shape
        seen.append(tuple(part.shape))
        return part * same * scale.view(-1, 1, 1, 1)

    monkeypatch.setattr(layers, "TILE_BYTES", 2 * 3 * 4 * 4)  # two of the five places of a clip
    with torch.no_grad():
        out = in_tiles(product, x, x + 1, scale, axis=2)
    assert torch.equal(out, x * (x + 1) * scale.view(-1, 1, 1, 1))
    assert seen == 2 * [(1, 3, 2, 4), (1, 3, 2, 4), (1, 3, 1, 4)]


def test_with_gradients_or_little_data_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 3, 5)
    seen = []

    def note(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape)
        return part

    with torch.no_grad():
        in_tiles(note, x, axis=1)
    monkeypatch.setattr(layers, "TILE_BYTES", 8)
    in_tiles(note, x, axis=1)
    assert seen == [x.shape, x.shape]


@pytest.mark.parametrize("tile", [3000, 20000])
@pytest.mark.parametrize("clips", [1, 2])
def test_logits_do_not_depend_on_tiles(tile: int, clips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    # Chunks that divide rows and columns, that go over them, and whose T does not divide the width.
    model = MorphMLP(5, 10, (1, 1, 1, 1), (16, 24, 36, 40), (4, 8, 6, 2)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3 / max(1, p[0].numel()) ** 0.5)
    x = torch.randn(clips, 3, 10, 64, 96)
    want = model(x).detach()
    monkeypatch.setattr(layers, "TILE_BYTES", tile)
    with torch.no_grad():
        torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(x).float() - want).abs().max() < 0.05 * want.abs().max()


def test_training_mode_without_gradients_draws_for_whole_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TILE_BYTES", 1)
    torch.manual_seed(0)
    model = MorphMLP(5, 4, (1, 1, 1, 1), (16, 16, 16, 16), (8, 4, 2, 1), drop_depth_rate=0.5).train()
    x = torch.randn(2, 3, 4, 32, 32)
    torch.manual_seed(1)
    with global_batch(4, [1, 2]):
        want = model(x).detach()
    torch.manual_seed(1)
    with global_batch(4, [1, 2]), torch.no_grad():
        torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-5)
