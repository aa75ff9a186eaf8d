"""Encoder of Event2Vec against nn.TransformerEncoder, which the published code uses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from random_weights import randomized
from torch import nn

from slowfast.models.event_transformer import EventTransformer
from slowfast.models.linear import pack_linears

DIM, HEADS, MLP, CLASSES = 16, 4, 24, 5


def networks(layers: int) -> tuple[EventTransformer, nn.TransformerEncoder]:
    ours = randomized(EventTransformer(DIM, HEADS, MLP, layers, CLASSES))
    layer = nn.TransformerEncoderLayer(DIM, HEADS, MLP, dropout=0.0, batch_first=True)
    theirs = nn.TransformerEncoder(layer, layers, nn.LayerNorm(DIM), enable_nested_tensor=False)
    theirs.load_state_dict(ours.encoder.state_dict())
    return ours, theirs.eval()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_pytorchs_encoder_with_all_gradients(layers: int, padded: bool) -> None:
    ours, theirs = networks(layers)
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
