"""Event2Vec: scaling to the grid, padding, times, slices, pre-training, and its encoder against nn.TransformerEncoder.

The published code uses the latter.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from event_files import event_batch
from random_weights import randomized
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.event2vec import AddTime, Event2Vec, Time2Vec
from slowfast.models.event_transformer import EventTransformer
from slowfast.models.linear import pack_linears
from slowfast.models.protocol import MASKED

LENGTH = 24


def network(**settings: object) -> Event2Vec:
    torch.manual_seed(0)
    sizes = {"sensor_size": (12, 16), "grid_size": (6, 8), "embed_dim": 16, "heads": 2, "mlp_dim": 24, "layers": 2}
    return randomized(Event2Vec(5, **(sizes | settings)))


def padded(events: dict[str, torch.Tensor], by: int) -> dict[str, torch.Tensor]:
    n = len(events["x"])
    more = {key: torch.full((n, by), -1, dtype=value.dtype) for key, value in events.items() if key != "valid"}
    more["valid"] = torch.zeros(n, by, dtype=torch.bool)
    return {key: torch.cat((value, more[key]), 1) for key, value in events.items()}


@pytest.mark.parametrize("embed", ["naive", "naive2d", "neighbor1d-naive-1-1", "neighbor1d-naive2d-1-1"])
@pytest.mark.parametrize("tpe", ["add", "t2v"])
def test_padding_changes_nothing(embed: str, tpe: str) -> None:
    model = network(embed=embed, tpe=tpe)
    events = event_batch(2, LENGTH)
    torch.testing.assert_close(model(padded(events, 7)), model(events), rtol=1e-5, atol=1e-6)


def test_inference_without_gradients_gives_the_same() -> None:
    model, events = network(), padded(event_batch(2, LENGTH), 5)
    with torch.inference_mode():
        found = model(events)
    torch.testing.assert_close(found, model(events), rtol=1e-5, atol=1e-6)


def test_order_of_events_does_not_matter_and_their_times_do() -> None:
    model, events = network(), event_batch(2, LENGTH)
    order = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(3))
    shuffled = {key: value[:, order] for key, value in events.items()}
    torch.testing.assert_close(model(shuffled), model(events), rtol=1e-4, atol=1e-5)
    times = {**events, "t": events["t"][:, order]}
    assert (model(times) - model(events)).abs().max() > 1e-3


def test_halves_go_to_the_even_cell_and_the_last_line_is_kept() -> None:
    model = network()
    y = torch.arange(12)[None]
    events = {"x": torch.arange(12)[None], "y": y, "p": y % 2}
    _, rows, columns = model._positions(events)
    assert rows[0].tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5]  # 5.5 would be 6
    assert columns[0].tolist() == [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6]


def test_time_encodings() -> None:
    t, tokens = torch.tensor([[0.0, 0.5]]), torch.zeros(1, 2, 3)
    assert AddTime()(t, tokens).tolist() == [[[0.0] * 3, [0.5] * 3]]
    encoding = Time2Vec(3)
    plain = t[..., None] * encoding.fc.weight.flatten() + encoding.fc.bias
    want = torch.cat((plain[..., :1], torch.sin(plain[..., 1:])), -1)
    torch.testing.assert_close(AddTime(encoding)(t, tokens), want)


def test_slices_are_averaged_event_by_event() -> None:
    """Two equal slices give the same result as one; padding has no effect."""
    model, whole = network(), network(t_heads=2)
    events = event_batch(2, 6)
    twice = {key: torch.cat((value, value), 1) for key, value in events.items()}
    torch.testing.assert_close(whole(twice), model(events), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole(padded(events, 6)), model(events), rtol=1e-5, atol=1e-6)
    assert whole(event_batch(2, 7)).isfinite().all(), "a length that does not divide"


def test_one_polarity_takes_all_events_alike() -> None:
    model, events = network(polarities=1), event_batch(2, LENGTH)
    assert torch.equal(model({**events, "p": 1 - events["p"]}), model(events))


def test_pretext_masks_a_share_of_valid_events_and_hides_them() -> None:
    model = network(mask_ratio=0.5, embed="naive")
    events = padded(event_batch(64, LENGTH), 6)
    torch.manual_seed(0)
    masked, places = model.pretext(events)
    chosen = masked[MASKED]
    assert not chosen[~events["valid"]].any() and chosen.any(1).all()
    assert 0.45 < chosen[events["valid"]].float().mean() < 0.55
    scores = model(masked)
    assert scores.shape == (int(chosen.sum()), 2 * 6 * 8) and places.shape == (int(chosen.sum()),)
    elsewhere = {key: torch.where(chosen, (masked[key] + 1) % 2, masked[key]) for key in ("x", "y", "p")}
    torch.testing.assert_close(model({**masked, **elsewhere}), scores)  # the position of a masked event must not leak
    assert places.max() < 2 * 6 * 8 and not any(p.requires_grad for p in model.classifier.head.parameters())


def test_pretext_never_masks_nothing() -> None:
    model = network(mask_ratio=1e-6)
    masked, places = model.pretext(event_batch(4, LENGTH))
    assert masked[MASKED].sum(1).tolist() == [1, 1, 1, 1] and len(places) == 4


def test_layers_start_from_different_weights() -> None:
    torch.manual_seed(0)
    layers = Event2Vec(5, embed_dim=16, heads=2, mlp_dim=24).classifier.encoder.layers
    one, other = (dict(layer.named_parameters()) for layer in layers)
    assert not any(torch.equal(one[key], other[key]) for key in one if one[key].dim() > 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid_size": (13, 8)}, "GRID_SIZE.*SENSOR_SIZE"),
        ({"heads": 3}, "HEADS .3. must divide EVENT2VEC.EMBED_DIM .16."),
        ({"mask_ratio": 0.5, "t_heads": 2}, "T_HEADS 1 for pre-training"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**settings)


def test_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match="dict of x, y, t, p, valid"):
        network()(torch.zeros(1, 3, 8, 32, 32))


DIM, HEADS, MLP, CLASSES = 16, 4, 24, 5  # of the encoder alone


def encoders(layers: int) -> tuple[EventTransformer, nn.TransformerEncoder]:
    ours = randomized(EventTransformer(DIM, HEADS, MLP, layers, CLASSES))
    layer = nn.TransformerEncoderLayer(DIM, HEADS, MLP, dropout=0.0, batch_first=True)
    theirs = nn.TransformerEncoder(layer, layers, nn.LayerNorm(DIM), enable_nested_tensor=False)
    theirs.load_state_dict(ours.encoder.state_dict())
    return ours, theirs.eval()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_pytorchs_encoder_with_all_gradients(layers: int, padded: bool) -> None:
    ours, theirs = encoders(layers)
    tokens = torch.randn(3, 7, DIM, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(3, 7, dtype=torch.bool)
    if padded:
        valid[0, 5:], valid[1] = False, False  # the second recording has the class token alone
    joined = torch.cat((ours.class_token.detach().expand(3, -1, -1), tokens), 1)
    wanted = theirs(joined, src_key_padding_mask=F.pad(~valid, (1, 0)))
    kept = F.pad(valid, (1, 0), value=True)
    torch.testing.assert_close(ours.encode(tokens, valid, False)[kept], wanted[kept], rtol=1e-4, atol=1e-5)
    wanted[:, 0].square().sum().backward()
    for recompute in (False, True):
        found = ours.class_features(tokens, valid, recompute)
        torch.testing.assert_close(found, wanted[:, 0], rtol=1e-4, atol=1e-5)
        ours.zero_grad()
        found.square().sum().backward()
        theirs_by_name = dict(theirs.named_parameters())
        for name, parameter in ours.encoder.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs_by_name[name].grad, rtol=1e-3, atol=1e-4, msg=name)
    with torch.inference_mode():
        pack_linears(ours)
        torch.testing.assert_close(ours.class_features(tokens, valid, False), found, rtol=1e-4, atol=1e-5)
