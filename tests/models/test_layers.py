"""Random layers that do not depend on the distribution of a batch, and activation checkpointing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from slowfast.models.convmlp import ConvMLP
from slowfast.models.eat import EAT
from slowfast.models.layers import (
    BlockOfParts,
    Dropout,
    DropPath,
    RowSampler,
    frames_as_batch,
    global_batch,
    run_blocks,
    shared_sampler,
)
from slowfast.models.morphmlp import MorphMLP


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


class Fixed(RowSampler):
    """Sampler that keeps some samples and drops the others."""

    def __init__(self, kept: Sequence[bool]) -> None:
        super().__init__()
        self.kept = torch.tensor(kept)

    def uniform(self, batch: int, *shape: int) -> torch.Tensor:
        return self.kept.float() * 0.99


SMALL_NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MorphMLP": (
        lambda: MorphMLP(5, 4, (1, 1), (8, 16), (4, 4), (2, 2), drop_depth_rate=0.5),
        (3, 4, 32, 32),
    ),
    "ConvMLP": (lambda: ConvMLP(5, (2, 2), (8, 16), (2, 2), 8, 1, drop_depth_rate=0.5), (3, 32, 32)),
    "EAT": (lambda: EAT(5, 32, 8, 2, 1, 16, 4, 2, drop_depth_rate=0.5), (3, 32, 32)),
}


@pytest.mark.parametrize("kept", [(True, False, True), (False, False, False), (True, True, True), (False,)])
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_dropped_samples_that_are_not_computed_change_nothing(
    name: str, kept: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    build, shape = SMALL_NETWORKS[name]
    model, x = build().train(), torch.randn(len(kept), *shape)
    model = model.double()
    for parameter in model.parameters():  # some start at 0 and would hold gradients back
        nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.sampler = Fixed(kept)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    found = gradients(model, x.double())
    with monkeypatch.context() as context:
        context.setattr(DropPath, "residual", lambda self, x, branch: self(x, branch(x)))
        want = gradients(model, x.double())
    assert all(gradient is not None for gradient in found)  # also of branches that were computed for no sample
    torch.testing.assert_close(found, want)


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor | None]:
    """The logits and the gradients of all parameters."""
    model.zero_grad()
    logits = model(x)
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("dropped, computed", [(0, 16), (1, 16), (2, 14), (15, 1), (16, 0)])
def test_the_branch_is_computed_for_kept_samples_where_that_pays(dropped: int, computed: int) -> None:
    layer, x = DropPath(0.5).train(), torch.ones(16, 3)
    kept = [False] * dropped + [True] * (16 - dropped)
    layer.sampler = Fixed(kept)
    sizes = []

    def branch(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows * 10

    y = layer.residual(x, branch)
    assert sizes == [computed]
    assert torch.equal(y, x + 20 * torch.tensor(kept).float()[:, None])


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
