"""EAT against a plain implementation of its equations, and its checks."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from slowfast.config.defaults import get_cfg
from slowfast.errors import CheckpointError, ConfigError
from slowfast.models.eat import EAT
from slowfast.models.eat_blocks import LocalAttention
from slowfast.models.eat_pixel_order import PixelSequence
from slowfast.models.weights import load_weights
from tests.random_weights import randomized

HEADS = 4


def small(**kwargs: object) -> EAT:
    torch.manual_seed(0)
    settings = {
        "image_size": 32,
        "patch_size": 8,
        "layers": 2,
        "embed_dim": 16,
        "heads": HEADS,
        "num_classes": 7,
    } | kwargs
    return EAT(**settings)


class Plain:
    """The network as its equations read, from a state dict: pixels by the stored order, attention by softmax."""

    def __init__(self, model: EAT, kernel: int = 3) -> None:
        self.w, self.kernel, self.class_token = model.state_dict(), kernel, model.has_class_token

    def linear(self, key: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w[f"{key}.weight"].T + self.w[f"{key}.bias"]

    def norm(self, key: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{key}.weight"], self.w[f"{key}.bias"], 1e-6)

    def mlp(self, key: str, x: torch.Tensor) -> torch.Tensor:
        return self.linear(f"{key}.fc2", F.gelu(self.linear(f"{key}.fc1", x)))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, reach: float) -> torch.Tensor:
        """Head by head; tokens more than `reach` places apart do not see each other."""
        size = q.shape[-1] // heads
        place = torch.arange(k.shape[1])
        hidden = (torch.arange(q.shape[1])[:, None] - place).abs() > reach
        parts = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[..., part] @ k[..., part].mT / size**0.5
            parts.append(scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v[..., part])
        return torch.cat(parts, -1)

    def self_attention(self, key: str, x: torch.Tensor, heads: int, reach: float = math.inf) -> torch.Tensor:
        q, k, v = self.linear(f"{key}.qkv", x).chunk(3, -1)
        return self.linear(f"{key}.proj", self.attend(q, k, v, heads, reach))

    def local(self, key: str, x: torch.Tensor) -> torch.Tensor:
        if f"{key}.linear.weight" not in self.w:
            return self.self_attention(f"{key}.local", x, HEADS // 2, reach=self.kernel // 2)
        half = self.kernel // 2
        padded = F.pad(self.linear(f"{key}.linear", x), (0, 0, half, half))
        weight = self.w[f"{key}.local.weight"]
        taps = [padded[:, i : i + x.shape[1]] @ weight[:, :, i].T for i in range(self.kernel)]
        return sum(taps) + self.w[f"{key}.local.bias"]

    def block(self, key: str, x: torch.Tensor) -> torch.Tensor:
        if f"{key}.norm1_local.weight" not in self.w:
            x = x + self.self_attention(f"{key}.attn", self.norm(f"{key}.norm1", x), HEADS)
        else:
            width = len(self.w[f"{key}.norm1.weight"])
            attended = self.self_attention(f"{key}.attn", self.norm(f"{key}.norm1", x[..., :width]), HEADS // 2)
            local = self.local(f"{key}.local", self.norm(f"{key}.norm1_local", x[..., width:]))
            x = x + torch.cat((attended, local), -1)
        return x + self.mlp(f"{key}.mlp", self.norm(f"{key}.norm2", x))

    def tokens(self, image: torch.Tensor) -> torch.Tensor:
        weight, bias = self.w["patch_embed.weight"], self.w["patch_embed.bias"]
        order = self.w["loc_encoder.index_flat"].flatten()
        if weight.dim() == 3:  # the pixels in their order
            return F.conv1d(image.flatten(2)[:, :, order], weight, bias, stride=weight.shape[-1]).mT
        return F.conv2d(image, weight, bias, stride=weight.shape[-1]).flatten(2).mT[:, order]

    def heads(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = self.tokens(image)
        if self.class_token:
            x = torch.cat((self.w["cls_token"].expand(len(x), -1, -1), x), 1)
        x = x + self.w.get("pos_embed", torch.zeros(()))
        for i in range(2):
            x = self.block(f"blocks.{i}", x)
        x = self.norm("norm", x)
        if self.class_token:
            return [self.linear("head", x[:, 0])]
        if "cls_token" not in self.w:
            return [self.linear("head", x.mean(1))]
        return [self.classify(x, *names) for names in (("cls_token", "head"), ("dist_token", "head_dist"))]

    def classify(self, tokens: torch.Tensor, token: str, head: str) -> torch.Tensor:
        query = self.w.get(token, self.w["cls_token"]).expand(len(tokens), -1, -1)
        for i in range(2):
            key = f"blocks_cls.{i}"
            k, v = self.linear(f"{key}.attn.kv", tokens).chunk(2, -1)
            q = self.linear(f"{key}.attn.q", self.norm(f"{key}.norm1", query))
            query = query + self.linear(f"{key}.attn.proj", self.attend(q, k, v, HEADS, math.inf))
            query = query + self.mlp(f"{key}.mlp", self.norm(f"{key}.norm2", query))
        return self.linear(head if f"{head}.weight" in self.w else "head", query[:, 0])


@pytest.mark.parametrize("order", ["sis", "sweep", "scan", "zorder", "hilbert"])
@pytest.mark.parametrize("local", ["conv", "attn"])
def test_equals_the_plain_equations(order: str, local: str) -> None:
    model = randomized(small(pixel_order=order, local=local))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), Plain(model).heads(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"block_type": "base"},
        {"local_ratio": 0.25},
        {"local_ratio": 0.75, "local": "attn"},
        {"local_ks": 5},
        {"local_ks": 1, "local": "attn"},
        {"local_ks": 7, "local": "attn"},
        {"pos_emb": False},
        {"cls_token": True},
        {"cls_token": True, "block_type": "base", "pos_emb": False},
        {"cls_token_head": False},
        {"sfc_mode": "second", "pixel_order": "scan"},
        {"sfc_mode": "second", "pixel_order": "hilbert", "cls_token_head": False},
        {"sfc_mode": "second", "pixel_order": "zorder", "cls_token": True},
    ],
)
def test_published_options_equal_the_plain_equations(options: dict) -> None:
    model = randomized(small(**options))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), Plain(model, options.get("local_ks", 3)).heads(x)[0], rtol=1e-4, atol=1e-5)
    names = {"cls_token": not options.get("cls_token_head", True), "pos_embed": not options.get("pos_emb", True)}
    assert not any(name in model.state_dict() for name, absent in names.items() if absent)


def test_local_attention_sees_only_neighbors() -> None:
    """With a kernel of 3 the output at a token depends on the tokens |i - j| <= 1 and on no others."""
    layer = randomized(LocalAttention(8, 2, 6, 3))
    x = torch.randn(1, 6, 8, requires_grad=True)
    layer(x)[0, 2].sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().sum(1) > 0).tolist() == [False, True, True, True, False, False]
    assert layer.mask[0, 0].tolist() == [[float(abs(i - j) > 1) for j in range(6)] for i in range(6)]


@pytest.mark.parametrize("training", [False, True])
def test_distilled_logits_are_the_mean_of_both_heads(training: bool) -> None:
    model = randomized(small(distilled=True, drop_depth_rate=0)).train(training)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        classes, teacher = Plain(model).heads(x)
        found = model.forward_heads(x)
        torch.testing.assert_close(found, (classes, teacher), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(x), (classes + teacher) / 2, rtol=1e-4, atol=1e-5)
    assert (classes - teacher).abs().max() > 0.1


def test_patchwise_order_without_a_table_equals_the_table() -> None:
    sequence = PixelSequence("sis", 24, 6)
    x = torch.randn(2, 3, 24, 24)
    want = sequence(x)
    sequence.is_patchwise = False
    assert torch.equal(sequence(x), want)


def test_a_checkpoint_of_another_pixel_order_is_refused() -> None:
    model = small(pixel_order="sis")
    before = model.head.weight.clone()
    with pytest.raises(CheckpointError, match="does not fit this EAT: loc_encoder.index_flat differs from the network"):
        load_weights(model, randomized(small(pixel_order="scan")).state_dict(), Path("w.pth"))
    assert torch.equal(model.head.weight, before)


def test_both_heads_are_replaced_for_another_class_count(caplog: pytest.LogCaptureFixture) -> None:
    source, target = randomized(small(distilled=True)), small(distilled=True, num_classes=5)
    heads = target.head.weight.clone(), target.head_dist.weight.clone()
    with caplog.at_level(logging.WARNING, "slowfast"):
        load_weights(target, source.state_dict(), Path("w.pth"), allow_new_head=True)
    assert caplog.text.count("7 classes") == 1
    assert torch.equal(target.head.weight, heads[0]) and torch.equal(target.head_dist.weight, heads[1])
    assert torch.equal(target.pos_embed, source.pos_embed)


def test_initial_values() -> None:
    model = small(embed_dim=64, distilled=True)
    for value in (model.cls_token, model.dist_token, model.pos_embed, model.blocks[0].local.linear.weight):
        assert 0.012 < value.std() < 0.024
    conv = model.blocks[0].local.local.weight  # PyTorch's default: uniform in +-1 / sqrt(fan in)
    assert 0.9 < conv.abs().max() * math.sqrt(conv[0].numel()) <= 1
    rates = [block.drop_path.rate for block in small(layers=3, drop_depth_rate=0.4).blocks]
    assert rates == pytest.approx([0, 0.2, 0.4])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATA.TRAIN_CROP_SIZE", 192], "TRAIN_CROP_SIZE 192 and TEST_CROP_SIZE 224 differ"),
        (["EAT.PATCH_SIZE", 15], "15 does not divide the crop of 224"),
        (["EAT.PATCH_SIZE", 15, "EAT.SFC_MODE", "second", "EAT.PIXEL_ORDER", "scan"], "15 does not divide"),
        (["EAT.SFC_MODE", "second"], "sis orders the pixels inside patches"),
        (["EAT.SFC_MODE", "second", "EAT.PIXEL_ORDER", "zorder"], "power of two"),
        (["EAT.LOCAL_KS", 4], "LOCAL_KS .4. must be odd"),
        (["EAT.LOCAL_RATIO", 0.0], "splits the 192 channels of EAT.EMBED_DIM into 192 and 0"),
        (["EAT.LOCAL_RATIO", 0.37], "into 121 and 71"),
        (["EAT.CLS_TOKEN", True, "EAT.LOCAL", "attn"], "a class token has no neighbors"),
        (["EAT.CLS_TOKEN", True, "EAT.DISTILLED", True], "DISTILLED needs the class blocks"),
        (["EAT.CLS_TOKEN_HEAD", False, "EAT.DISTILLED", True], "DISTILLED needs the class blocks"),
        (["EAT.PIXEL_ORDER", "hilbert"], "power of two, such as 256, not 224"),
        (["EAT.HEADS", 3], "HEADS .3. must be even"),
        (["EAT.HEADS", 10], "EAT.HEADS .10. must divide EAT.EMBED_DIM .192."),
    ],
)
def test_impossible_configs(overrides: list, message: str) -> None:
    cfg = get_cfg()
    EAT.check_config(cfg)
    cfg.merge_from_list(overrides)
    with pytest.raises(ConfigError, match=message):
        EAT.check_config(cfg)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="32 x 32 pixels, not 32 x 40"):
        small()(torch.randn(1, 3, 32, 40))
