"""Event2Vec v2: gated linear attention against a recurrence, published sizes and keys, pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_weights import randomized

from slowfast.errors import ConfigError
from slowfast.models.event2vec_v2 import (
    BiGatedLinearAttention,
    Event2VecV2,
    event2vec_v2_asldvs,
    event2vec_v2_dvsgesture,
    gated_linear_attention,
)


def recurrence(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_gate: torch.Tensor) -> torch.Tensor:
    """q_i^T S_i in float64, one event at a time: (L, K), (L, K), (L, V), (L, K) -> (L, V)."""
    state, rows = torch.zeros(k.shape[1], v.shape[1], dtype=torch.float64), []
    for i in range(len(q)):
        state = log_gate[i].double().exp()[:, None] * state + torch.outer(k[i].double(), v[i].double())
        rows.append(q[i].double() @ state)
    return torch.stack(rows).float()


@given(seed=st.integers(0, 1000), length=st.sampled_from([1, 15, 16, 50]), strength=st.sampled_from([0.0, 0.3, 4.0]))
@settings(max_examples=12, deadline=None)
def test_chunks_equal_the_recurrence(seed: int, length: int, strength: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    q, k, v, g = (torch.randn(1, 2, length, n, generator=rng) for n in (4, 4, 6, 4))
    gates = -strength * g.abs()
    found = gated_linear_attention(q, k, v, gates)
    for head in range(2):
        wanted = recurrence(*(x[0, head] for x in (q, k, v, gates)))
        torch.testing.assert_close(found[0, head], wanted, rtol=1e-3, atol=1e-4)


def test_layer_equals_the_recurrence_without_invalid_events() -> None:
    layer = randomized(BiGatedLinearAttention(16, 2, 0.5))
    x = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) < 0.7
    found = layer(x, valid)
    for row, kept in zip(range(2), valid, strict=True):
        s = x[row][kept]
        sides = []
        for order in (slice(None), torch.arange(len(s) - 1, -1, -1)):
            heads = []
            for h in (slice(0, 4), slice(4, 8)):
                gates = F.logsigmoid(layer.gk_proj(s)[:, h]) / 16
                values = (layer.q_proj(s)[:, h] / 2, layer.k_proj(s)[:, h], layer.v_proj(s)[:, h], gates)
                o = recurrence(*(value[order] for value in values))[order]
                o = o / (o.square().mean(1, keepdim=True) + 1e-5).sqrt() * layer.g_norm_swish_gate.weight
                heads.append(o * F.silu(layer.g_proj(s)[:, h]))
            sides.append(torch.cat(heads, 1))
        torch.testing.assert_close(found[row][kept], layer.o_proj(torch.cat(sides, 1)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("build", "parameters"), [(event2vec_v2_asldvs, 91_800), (event2vec_v2_dvsgesture, 843_579)])
def test_published_sizes_and_keys(build, parameters: int) -> None:
    """0.350 and 3.218 MiB of float32 in the authors' logs."""
    with torch.device("meta"):
        state = build().state_dict()
    assert sum(value.numel() for value in state.values()) == parameters
    layer = "classifier.backbone_net.0.layers.0.attention.attention"
    names = ["q_proj", "k_proj", "v_proj", "g_proj", "gk_proj.0", "gk_proj.1", "o_proj", "g_norm_swish_gate"]
    assert {f"{layer}.{name}.weight" for name in names} <= state.keys() and f"{layer}.gk_proj.1.bias" in state


def test_pairs_are_averaged_before_each_stage() -> None:
    model = randomized(Event2VecV2(5, (12, 16), 16, 2, 24, layers=3, pool_every=1, expand=0.5))
    rng = torch.Generator().manual_seed(0)
    events = {key: torch.randint(limit, (2, 20), generator=rng) for key, limit in {"x": 16, "y": 12, "p": 2}.items()}
    events |= {"t": torch.rand(2, 20, generator=rng).sort(1)[0], "valid": torch.ones(2, 20, dtype=torch.bool)}
    lengths: list[int] = []
    for encoder in model.classifier.backbone_net:
        encoder.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    longer = {key: F.pad(value, (0, 12), value=0 if key == "valid" else -1) for key, value in events.items()}
    again = {key: F.pad(value, (0, 4), value=0 if key == "valid" else -1) for key, value in longer.items()}
    torch.testing.assert_close(model(longer), model(again), rtol=1e-4, atol=1e-5)
    assert lengths == [16, 8, 4, 18, 9, 5]


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match=r"HEADS .4. must divide EVENT2VEC.EMBED_DIM x EVENT2VEC.EXPAND .16 x 0.1."):
        Event2VecV2(5, (12, 16), 16, 4, 24, expand=0.1)
