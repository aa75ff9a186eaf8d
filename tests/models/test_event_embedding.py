"""Embeddings of events against gathering and summing neighbors one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.event_networks import plain_embedding
from slowfast.errors import ConfigError
from slowfast.models.event_embedding import EventEmbedding, Grid, build_embedding

NAMES = [
    "naive",
    "naive2d",
    "neighbor1d-naive-2-1",
    "neighbor1d-naive-1-3",
    "neighbor1d-naive2d-2-1",
    "neighbor1d-naive2d-3-2",
    "neighbor2d-naive-1-1",
    "neighbor2d-naive-2-2",
]
WIDTH = 12
Events = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def events(grid: Grid, batch: int, length: int, seed: int = 0) -> Events:
    rng = torch.Generator().manual_seed(seed)
    p, y, x = (torch.randint(n, (batch, length), generator=rng) for n in (grid.polarities, grid.height, grid.width))
    valid = torch.rand(batch, length, generator=rng) < 0.8
    return p, y, x, valid


def scrambled(name: str, grid: Grid) -> EventEmbedding:
    torch.manual_seed(0)
    embedding = build_embedding(name, grid, WIDTH)
    with torch.no_grad():
        for key, parameter in embedding.named_parameters():
            if key.split(".")[-1].startswith("c"):
                parameter.normal_()
    return embedding


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    polarities=st.integers(1, 2),
    length=st.sampled_from([3, 60]),
    seed=st.integers(0, 99),
)
def test_equals_gathering_one_by_one(
    name: str, height: int, width: int, polarities: int, length: int, seed: int
) -> None:
    grid = Grid(polarities, height, width)
    embedding = scrambled(name, grid)
    p, y, x, valid = events(grid, 2, length, seed)
    torch.testing.assert_close(embedding(p, y, x, valid), plain_embedding(embedding, p, y, x, valid))


def check_gradients(name: str, grid: Grid, batch: int, length: int, seed: int) -> None:
    """Those of gathering one by one; and the row of padding is never trained."""
    fast, slow = scrambled(name, grid), scrambled(name, grid)
    p, y, x, valid = events(grid, batch, length, seed)
    wanted = torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(seed)) * valid[..., None]
    (fast(p, y, x, valid) * wanted).sum().backward()
    (plain_embedding(slow, p, y, x, valid) * wanted).sum().backward()
    for (key, one), (_, other) in zip(fast.named_parameters(), slow.named_parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-4, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
        )
        if one.dim() == 2:
            assert one.grad[0].abs().max() == 0, "the row of padding is never trained"


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(2, 8),
    width=st.integers(2, 8),
    polarities=st.integers(1, 2),
    batch=st.integers(1, 3),
    length=st.sampled_from([1, 3, 60]),
    seed=st.integers(0, 99),
)
def test_gradients_equal_those_of_gathering_one_by_one(
    name: str, height: int, width: int, polarities: int, batch: int, length: int, seed: int
) -> None:
    check_gradients(name, Grid(polarities, height, width), batch, length, seed)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("neighbor")])
@pytest.mark.parametrize("length", [900, 1100], ids=["fewer events than places", "more"])
def test_gradients_of_many_events(name: str, length: int) -> None:
    check_gradients(name, Grid(2, 20, 25), 1, length, 0)


@pytest.mark.parametrize("name", NAMES)
def test_training_after_inference(name: str) -> None:
    """What is found once of a grid's neighbors in inference serves training, too."""
    embedding, given_events = scrambled(name, Grid(2, 4, 6)), events(Grid(2, 4, 6), 2, 60)
    with torch.inference_mode():
        before = embedding(*given_events)
    tokens = embedding(*given_events)
    tokens.sum().backward()
    torch.testing.assert_close(tokens.detach(), before.clone(), rtol=0, atol=0)
    copy.deepcopy(embedding)(*given_events).sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_events_that_are_not_valid_may_be_anything_and_give_zeros(name: str) -> None:
    grid = Grid(2, 4, 6)
    embedding = scrambled(name, grid)
    p, y, x, valid = events(grid, 2, 60)
    want = embedding(p, y, x, valid)
    p, y, x = (torch.where(valid, values, -1) for values in (p, y, x))
    found = embedding(p, y, x, valid)
    assert torch.equal(found[valid], want[valid]) and found[~valid].abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_products_with_the_rows_of_the_table(name: str) -> None:
    grid = Grid(2, 3, 5)
    embedding = scrambled(name, grid)
    place = grid.position(torch.arange(grid.cells))
    rows = getattr(embedding, "embed", embedding)
    if "2d-naive" in name or "1d-naive-" in name:
        table = rows.weight[1:]
    else:
        table = rows(*place, torch.ones(grid.cells, dtype=torch.bool))
    tokens = torch.randn(4, WIDTH)
    torch.testing.assert_close(embedding.scores(tokens), tokens @ table.t())


def test_neighbor_weights_start_as_published() -> None:
    weights = build_embedding("neighbor2d-naive-1-1", Grid(2, 4, 4), WIDTH).c
    corner, edge = torch.exp(torch.tensor(-1.0)), torch.exp(torch.tensor(-0.5))
    want = torch.stack([corner, edge, corner, edge, torch.tensor(1.0), edge, corner, edge, corner])
    torch.testing.assert_close(weights.flatten(), want)
    assert weights.shape == (9, 1, 1, 1)


def test_the_square_adds_lines_and_columns_as_published() -> None:
    embedding = build_embedding("neighbor2d-naive-0-1", Grid(2, 4, 6), WIDTH)
    one = torch.ones(1, 1, dtype=torch.long)
    valid = torch.ones(1, 1, dtype=torch.bool)
    found = embedding(one, 3 * one, 2 * one, valid)
    torch.testing.assert_close(found[0, 0], embedding.embed.weight[1 + 24 + 3 + 2])


@pytest.mark.parametrize("name", ["naiv", "neighbor1d-naive", "neighbor1d-naive-1-0", "neighbor3d-naive-1-1"])
def test_unknown_names_are_refused_with_the_known_forms(name: str) -> None:
    with pytest.raises(ConfigError, match="neighbor1d-naive2d-n-k"):
        build_embedding(name, Grid(2, 4, 4), WIDTH)


def test_too_few_channels_for_two_tables() -> None:
    with pytest.raises(ConfigError, match="EMBED_DIM .2."):
        build_embedding("naive2d", Grid(2, 1, 30), 2)
