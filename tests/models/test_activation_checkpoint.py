"""Gradient checkpointing saves memory and changes no result."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slowfast.models.layers import BlockOfParts, DropPath, global_batch, run_blocks


class Residual(BlockOfParts):
    """A block with a wide hidden layer and drop path; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.drop_path = nn.Linear(8, 64), nn.Linear(64, 8), DropPath(0.5)
        self.calls = 0

    def parts(self) -> tuple:
        return (self.whole,)

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.drop_path(x, self.narrow(self.wide(x).relu()))


def blocks() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(Residual() for _ in range(4)).train()


def run(layers: nn.ModuleList, recompute: bool | int) -> dict[str, torch.Tensor]:
    """Output, gradients and, as "bytes", what the forward pass keeps besides the weights."""
    x = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = {p.untyped_storage().data_ptr() for p in layers.parameters()}
    kept: dict[int, int] = {}

    def note(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), global_batch(layers, 12, range(3, 9)):
        out = run_blocks(layers, x, recompute)
        keeps = sum(kept.values())
    (out.square().sum()).backward()  # after global_batch, as a training step may
    grads = {name: p.grad.clone() for name, p in layers.named_parameters()}
    return grads | {"out": out.detach(), "x": x.grad, "bytes": torch.tensor(keeps)}


@pytest.mark.parametrize("recompute", [True, 1, 3, 9])
def test_same_output_and_gradients_bit_for_bit_and_less_kept(recompute: bool | int) -> None:
    want, found = run(blocks(), False), run(blocks(), recompute)
    assert found.pop("bytes") < want.pop("bytes")
    assert all(torch.equal(want[key], found[key]) for key in want)


@pytest.mark.parametrize(
    ("recompute", "calls"), [(False, [1, 1, 1, 1]), (0, [1, 1, 1, 1]), (2, [2, 2, 1, 1]), (True, [2, 2, 2, 2])]
)
def test_the_first_blocks_are_computed_again(recompute: bool | int, calls: list[int]) -> None:
    layers = blocks()
    run(layers, recompute)
    assert [layer.calls for layer in layers] == calls


def test_nothing_is_recomputed_without_gradients() -> None:
    layers = blocks()
    with torch.no_grad():
        run_blocks(layers, torch.randn(6, 5, 8), True)
    assert [layer.calls for layer in layers] == [1, 1, 1, 1]


class TwoParts(Residual):
    """A block that names its parts."""

    def parts(self) -> tuple:
        return self.first, self.second

    def first(self, x: torch.Tensor) -> torch.Tensor:
        return self.whole(x)

    def second(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(self.wide(x).tanh())


def test_parts_of_a_block_are_recomputed_one_by_one_with_equal_gradients() -> None:
    def made() -> nn.ModuleList:
        torch.manual_seed(0)
        return nn.ModuleList(TwoParts() for _ in range(2)).train()

    want, found = run(made(), False), run(made(), True)
    assert found.pop("bytes") < want.pop("bytes")
    assert all(torch.equal(want[key], found[key]) for key in want)
