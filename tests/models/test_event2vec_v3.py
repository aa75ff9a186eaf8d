"""Event2Vec v3 against loops over single events, published sizes and keys, padding, pooling."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from event_files import event_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_weights import randomized
from torch import nn

from slowfast.datasets.mixup import TokenMix
from slowfast.errors import ConfigError
from slowfast.models.event2vec_coordinates import mean_of_pairs, time_steps
from slowfast.models.event2vec_v3 import (
    INTENSITY,
    BiForgettingAttention,
    Event2VecV3,
    causal_forgetting_attention,
    event2vec_v3_asldvs,
    event2vec_v3_dvsgesture,
    event2vec_v3_dvslip,
)
from slowfast.models.protocol import MASKED, MIXED
from slowfast.models.weights import load_weights, read_weights

LENGTH = 12


def network(**settings: object) -> Event2VecV3:
    torch.manual_seed(0)
    sizes = {"sensor_size": (12, 16), "embed_dim": 16, "heads": 4, "mlp_dim": 24, "layers": 2}
    return randomized(Event2VecV3(5, **(sizes | settings)))


def with_holes(events: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    valid = torch.rand(events["valid"].shape, generator=torch.Generator().manual_seed(2)) < 0.7
    return {**events, "valid": valid}


def attention_by_loops(layer: BiForgettingAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention of the tokens of one recording, (L, C), all valid, one query and head at a time."""
    length, dim = x.shape
    d = dim // layer.heads

    def rms(y: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        parts = [part / (part.square().mean() + 1e-5).sqrt() for part in y.split(d)]
        return torch.cat(parts) * norm.weight

    q = [rms(layer.q_proj(token), layer.q_norm) for token in x]
    k = [rms(layer.k_proj(token), layer.k_norm) for token in x]
    v = [layer.v_proj(token) for token in x]
    f = [F.logsigmoid(layer.f_proj(token)) for token in x]
    rows = []
    for i in range(length):
        sides = []
        for keys, between in (
            (range(i + 1), lambda j, i: range(j + 1, i + 1)),
            (range(i, length), lambda j, i: range(i, j)),
        ):
            for h in range(layer.heads):
                own, shared = slice(h * d, (h + 1) * d), slice(h // 2 * d, (h // 2 + 1) * d)
                scores = [q[i][own] @ k[j][shared] / math.sqrt(d) + sum(f[n][h] for n in between(j, i)) for j in keys]
                weights = torch.stack(scores).softmax(0)
                sides.append(sum(w * v[j][shared] for w, j in zip(weights, keys, strict=True)))
        rows.append(layer.o_proj(torch.cat(sides)))
    return torch.stack(rows)


def test_attention_equals_loops_with_gradients() -> None:
    layer = randomized(BiForgettingAttention(16, 4))
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, [0, 3, 6]] = False
    found = layer(x, valid)
    wanted = [attention_by_loops(layer, row[kept]) for row, kept in zip(x, valid, strict=True)]
    torch.testing.assert_close(found[valid], torch.cat(wanted), rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad(y.square().sum(), list(layer.parameters())) for y in (found[valid], torch.cat(wanted))
    ]
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 1000), length=st.sampled_from([1, 2, 33, 700]), strength=st.sampled_from([0.0, 1.0, 30.0]))
@settings(max_examples=12, deadline=None)
def test_long_sums_of_gates_stay_exact(seed: int, length: int, strength: float) -> None:
    """Against attention with the bias of every pair in float64."""
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 2, length, 8, generator=rng) for _ in range(3))
    gates = F.logsigmoid(strength * torch.randn(1, 2, length, generator=rng))
    valid = torch.rand(1, length, generator=rng) < 0.8
    found = causal_forgetting_attention(q, k, v, gates, valid)
    sums = gates.double().masked_fill(~valid, 0.0).cumsum(-1)
    bias = sums[..., :, None] - sums[..., None, :]
    excluded = torch.ones(length, length, dtype=torch.bool).triu(1) | ~valid[0]
    scores = q.double() @ k.double().transpose(-1, -2) / 8**0.5 + bias.masked_fill(excluded, -torch.inf)
    wanted = (scores.softmax(-1) @ v.double()).float()
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, :, valid[0]], wanted[:, :, valid[0]], rtol=2e-3, atol=2e-3)


def logits_by_loops(model: Event2VecV3, events: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of one recording without padding but possibly with invalid events, (1, L) each, without pooling."""
    net, (height, width) = model.classifier, model.sensor_size
    x, y, p, t = (events[key][0].float() for key in "xypt")
    valid = events["valid"][0]
    steps = [torch.tensor(0.0)]
    for i in range(1, len(t)):
        steps.append((t[i] - t[i - 1]) / t.max() if valid[i] and valid[i - 1] else torch.tensor(0.0))
    times = net.tpe.conv(torch.stack(steps)[None, None])[0]
    tokens = []
    for i in range(len(t)):
        place = torch.stack((x[i] * 2 / (width - 1) - 1, y[i] * 2 / (height - 1) - 1, p[i] * 2 - 1))
        tokens.append((net.embed_net.embed(place) + times[i]) * events.get(INTENSITY, torch.ones(1, len(t)))[0, i])
    s = torch.stack(tokens)[valid]
    for layer in net.backbone_net.layers:
        s = layer.norm1(s + attention_by_loops(layer.attention["attention"], s))
        s = layer.norm2(s + layer.ffn.linear2(layer.ffn.linear1(s).relu()))
    s = net.backbone_net.norm(s)
    return net.heads(s.sum(0, keepdim=True) / (len(s) + 1e-5))


def test_logits_equal_loops() -> None:
    model, events = network(), with_holes(event_batch(2, LENGTH))
    events[INTENSITY] = torch.arange(1.0, LENGTH + 1).repeat(2, 1)
    wanted = [logits_by_loops(model, {key: value[i : i + 1] for key, value in events.items()}) for i in range(2)]
    torch.testing.assert_close(model(events), torch.cat(wanted), rtol=1e-4, atol=1e-5)


def padded(events: dict[str, torch.Tensor], by: int) -> dict[str, torch.Tensor]:
    return {key: F.pad(value, (0, by), value=0 if key == "valid" else -1) for key, value in events.items()}


@pytest.mark.parametrize("pool_every", [0, 1])
def test_more_padding_and_other_recordings_change_nothing(pool_every: int) -> None:
    """As published, the first two places of padding are within reach of the convolutions of times."""
    model, events = network(pool_every=pool_every), padded(with_holes(event_batch(2, LENGTH)), 2)
    torch.testing.assert_close(model(padded(events, 6)), model(events), rtol=1e-4, atol=1e-5)
    alone = {key: value[1:] for key, value in events.items()}
    torch.testing.assert_close(model(alone), model(events)[1:], rtol=1e-4, atol=1e-5)
    nothing = {**events, "valid": torch.zeros_like(events["valid"])}
    assert model(nothing).isfinite().all()


def test_mean_of_pairs() -> None:
    x = torch.arange(1.0, 11.0).view(1, 5, 2)
    means, valid = mean_of_pairs(x, torch.tensor([[True, False, True, True, False]]))
    assert valid.tolist() == [[True, True, False]]
    torch.testing.assert_close(means, torch.tensor([[[1.0, 2.0], [6.0, 7.0], [0.0, 0.0]]]), rtol=1e-4, atol=1e-4)


def test_time_steps() -> None:
    t = torch.tensor([[5.0, 6.0, 9.0, 15.0, -1.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    valid = torch.tensor([[True, True, True, True, False], [True, False, True, True, True]])
    assert torch.allclose(time_steps(t, valid), torch.tensor([[0.0, 0.1, 0.3, 0.6, 0.0], [0.0] * 5]))


@pytest.mark.parametrize(
    ("build", "parameters"),
    [(event2vec_v3_asldvs, 71_580), (event2vec_v3_dvsgesture, 137_619), (event2vec_v3_dvslip, 4_799_236)],
)
def test_published_sizes(build, parameters: int) -> None:
    """0.273, 0.525 and 18.31 MiB of float32 in the authors' logs."""
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == parameters


def test_published_checkpoint_of_lightning(tmp_path: Path) -> None:
    """Names and wrapper of the authors' files."""
    layer = {f"attention.attention.{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "f_proj", "o_proj")}
    layer |= {f"attention.attention.{name}" for name in ("f_proj.bias", "q_norm.weight", "k_norm.weight")}
    layer |= {f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("weight", "bias")}
    layer |= {"ffn.linear1.weight", "ffn.linear2.weight"}
    norms = {f"{name}.{part}" for name in ("embed.1", "embed.4", "embed.7") for part in ("weight", "bias")}
    keys = {f"embed_net.{name}" for name in norms | {"embed.0.weight", "embed.3.weight", "embed.6.weight"}}
    norms = {f"tpe.conv.{number}.{part}" for number in (2, 7, 12) for part in ("weight", "bias")}
    keys |= norms | {f"tpe.conv.{number}.weight" for number in (0, 5, 10)}
    keys |= {f"backbone_net.{block}.layers.0.{name}" for block in (0, 1) for name in layer}
    keys |= {f"backbone_net.{block}.norm.{part}" for block in (0, 1) for part in ("weight", "bias")}
    keys |= {"heads.weight", "heads.bias"}
    source, target = network(pool_every=1), Event2VecV3(5, (12, 16), 16, 4, 24, 2, pool_every=1)
    state = source.state_dict()
    assert state.keys() == {f"classifier.{key}" for key in keys}
    path = tmp_path / "w.ckpt"
    content = {"state_dict": state, "epoch": 63, "global_step": 9, "pytorch-lightning_version": "2.5.3", "loops": {}}
    torch.save(content | {"hyper_parameters": {"P": 2, "compile": False, "load": None}, "callbacks": {}}, path)
    load_weights(target, read_weights(path, "pytorch", target), path)
    torch.testing.assert_close(target.eval()(event_batch(2, LENGTH)), source(event_batch(2, LENGTH)))


def test_recomputed_activations_give_the_same_gradients() -> None:
    for pool_every in (0, 1):
        gradients = []
        for recompute in (False, True, 1):
            model = network(pool_every=pool_every, drop_depth_rate=0.5, act_checkpoint=recompute).train()
            torch.manual_seed(3)
            model(event_batch(8, LENGTH)).square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        for other in gradients[1:]:
            for found, wanted in zip(other, gradients[0], strict=True):
                torch.testing.assert_close(found, wanted)


def test_masked_events_are_predicted_from_the_others() -> None:
    model, events = network(mask_ratio=0.4), with_holes(event_batch(2, LENGTH))
    events[INTENSITY] = torch.full_like(events["t"], 3.0)
    masked, wanted = model.pretext(events)
    chosen = masked[MASKED]
    assert chosen.any(1).all() and not chosen[~events["valid"]].any() and wanted.shape == (int(chosen.sum()), 3)
    p, y, x = ((wanted + 1) / 2 * torch.tensor([1, 11, 15])).unbind(1)
    for key, found in (("p", p), ("y", y), ("x", x)):
        torch.testing.assert_close(found, events[key][chosen].float(), rtol=0, atol=1e-5)
    found = model(masked)
    net = model.classifier
    times = net.tpe(time_steps(events["t"], events["valid"]))
    hidden = model._embedded(events)
    hidden[chosen] = net.mask_token
    encoded = net.backbone_net((hidden + times) * 3.0 * events["valid"][..., None], events["valid"])
    torch.testing.assert_close(found, net.heads(encoded[chosen] / 3.0 - times[chosen]).tanh(), rtol=1e-4, atol=1e-5)
    elsewhere = {key: torch.where(chosen, events[key] * 0, events[key]) for key in ("x", "y", "p")}
    torch.testing.assert_close(model({**masked, **elsewhere}), found)  # the coordinates of a masked event must not leak


def test_fine_tuning_starts_from_pre_trained_weights_without_their_head() -> None:
    pretrained, model = network(mask_ratio=0.3), network()
    assert {"classifier.mask_token", "classifier.heads.6.weight"} <= pretrained.state_dict().keys()
    head = model.classifier.heads.weight.clone()
    load_weights(model, model.adapt_start_weights(pretrained.state_dict(), "w.pth"), "w.pth")
    assert torch.equal(model.classifier.heads.weight, head)
    layers = (m.get_submodule("classifier.backbone_net.layers.1.ffn.linear1") for m in (model, pretrained))
    assert torch.equal(*(layer.weight for layer in layers))


def test_mixed_tokens_come_from_the_mirrored_recording() -> None:
    """All places: the logits of the other recording, if both are full."""
    model, events = network(), event_batch(4, LENGTH)
    torch.testing.assert_close(model({**events, MIXED: events["valid"]}), model(events).flip(0), rtol=1e-4, atol=1e-5)
    nothing = {**events, MIXED: ~events["valid"]}
    torch.testing.assert_close(model(nothing), model(events))
    soft = torch.eye(4)
    mixed, labels = TokenMix(1.0)(events, soft, np.random.default_rng(0))
    share = mixed[MIXED].float().mean(1)
    assert (mixed[MIXED] == mixed[MIXED][0]).all() and 0 < share[0] < 1
    torch.testing.assert_close(labels, soft * (1 - share[:, None]) + soft.flip(0) * share[:, None])
    assert TokenMix(0.0)(events, soft, np.random.default_rng(0)) == (events, soft)


def test_intensity_is_dropped_in_training_only() -> None:
    model, events = network(intensity_drop=1.0), event_batch(2, LENGTH)
    clusters = {**events, INTENSITY: torch.full_like(events["t"], 5.0)}
    assert not torch.allclose(model(clusters), model(events), atol=1e-3)
    torch.testing.assert_close(model.train()(clusters), model(events))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 18, "heads": 2}, "EMBED_DIM .18. must be a multiple of 4"),
        ({"heads": 3}, "HEADS .3. must divide"),
        ({"embed_dim": 24, "heads": 3}, "HEADS .3. must be 1 or even"),
        ({"pool_every": 3}, "POOL_EVERY .3. must divide EVENT2VEC.LAYERS .2."),
        ({"mask_ratio": 0.3, "pool_every": 1}, "POOL_EVERY 0 for pre-training"),
        ({"sensor_size": (1, 8)}, "at least 2 pixels"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**settings)
