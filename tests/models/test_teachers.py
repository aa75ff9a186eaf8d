"""Convolutional teachers against plain implementations of their equations and the published layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from slowfast.config.defaults import get_cfg
from slowfast.errors import ConfigError
from slowfast.models.efficientnet_v2 import EfficientNetV2
from slowfast.models.regnet import RegNetY
from tests.random_weights import randomized

State = dict[str, torch.Tensor]


def conv_norm(w: State, conv: str, norm: str, x: torch.Tensor, stride: int, eps: float) -> torch.Tensor:
    weight = w[f"{conv}.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1] // weight.shape[1])
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, scale, shift = (w[f"{norm}.{name}"].view(-1, 1, 1) for name in names)
    return (x - mean) / (var + eps).sqrt() * scale + shift


def squeeze_excite(w: State, key: str, x: torch.Tensor, activation) -> torch.Tensor:
    gate = activation(F.conv2d(x.mean((2, 3), keepdim=True), w[f"{key}.fc1.weight"], w[f"{key}.fc1.bias"]))
    return x * torch.sigmoid(F.conv2d(gate, w[f"{key}.fc2.weight"], w[f"{key}.fc2.bias"]))


def plain_regnet(w: State, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(conv_norm(w, "stem.conv", "stem.bn", x, 2, 1e-5))
    blocks = sorted({tuple(map(int, (k[1], k.split(".")[1][1:]))) for k in w if k[0] == "s" and k[1].isdigit()})
    for stage, place in blocks:
        key, stride = f"s{stage}.b{place}", 2 if place == 1 else 1

        def layer(name: str, x: torch.Tensor, stride: int = 1, key: str = key) -> torch.Tensor:
            return conv_norm(w, f"{key}.{name}.conv", f"{key}.{name}.bn", x, stride, 1e-5)

        y = F.relu(layer("conv2", F.relu(layer("conv1", x)), stride))
        y = layer("conv3", squeeze_excite(w, f"{key}.se", y, F.relu))
        shortcut = layer("downsample", x, stride) if f"{key}.downsample.conv.weight" in w else x
        x = F.relu(y + shortcut)
    return x.mean((2, 3)) @ w["head.fc.weight"].T + w["head.fc.bias"]


def plain_efficientnet(w: State, x: torch.Tensor) -> torch.Tensor:
    def layer(key: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        return conv_norm(w, f"{key}.0", f"{key}.1", x, stride, 1e-3)

    x = F.silu(layer("features.0", x, 2))
    for stage in range(1, 7):
        place = 0
        while any(k.startswith(f"features.{stage}.{place}.") for k in w):
            key = f"features.{stage}.{place}.block"
            stride = 2 if place == 0 and stage in (2, 3, 4, 6) else 1
            if f"{key}.2.fc1.weight" in w:
                y = F.silu(layer(f"{key}.1", F.silu(layer(f"{key}.0", x)), stride))
                y = layer(f"{key}.3", squeeze_excite(w, f"{key}.2", y, F.silu))
            else:
                y = F.silu(layer(f"{key}.0", x, stride))
                y = layer(f"{key}.1", y) if f"{key}.1.0.weight" in w else y
            x = x + y if x.shape == y.shape else y
            place += 1
    x = F.silu(layer("features.7", x)).mean((2, 3))
    return x @ w["classifier.1.weight"].T + w["classifier.1.bias"]


def test_efficientnet_equals_its_equations() -> None:
    layers, dims = (1, 2, 2, 3, 2, 2), (8, 16, 16, 24, 32, 40)
    model = randomized(EfficientNetV2(7, layers=layers, embed_dims=dims, head_dim=48))
    x = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain_efficientnet(model.state_dict(), x), rtol=1e-4, atol=1e-4)


def test_regnet_equals_its_equations() -> None:
    model = randomized(RegNetY(7, layers=(1, 2, 3), embed_dims=(16, 24, 48), group_width=8))
    x = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain_regnet(model.state_dict(), x), rtol=1e-4, atol=1e-4)


def test_published_layouts() -> None:
    """Parameter counts and the shapes of some keys of torchvision's and timm's files."""
    with torch.device("meta"):
        efficientnet, regnet = EfficientNetV2().state_dict(), RegNetY().state_dict()
    counts = [
        sum(v.numel() for k, v in w.items() if not k.endswith(("mean", "var", "tracked")))
        for w in (efficientnet, regnet)
    ]
    assert counts == [21_458_488, 83_590_140]
    assert [len(efficientnet), len(regnet)] == [782, 428]
    assert efficientnet["features.1.1.block.0.0.weight"].shape == (24, 24, 3, 3)
    assert efficientnet["features.4.0.block.2.fc1.weight"].shape == (16, 256, 1, 1)
    assert efficientnet["features.6.14.block.3.0.weight"].shape == (256, 1536, 1, 1)
    assert regnet["s1.b1.se.fc1.weight"].shape == (8, 224, 1, 1)
    assert regnet["s3.b11.conv2.conv.weight"].shape == (1232, 112, 3, 3)
    assert regnet["s4.b1.downsample.conv.weight"].shape == (3024, 1232, 1, 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["MODEL.MODEL_NAME", "RegNetY", "REGNET.EMBED_DIMS", [8, 16, 24, 30], "REGNET.GROUP_WIDTH", 8],
            "30 is not a mu",
        ),
        (["MODEL.MODEL_NAME", "RegNetY", "REGNET.LAYERS", [1, 1]], "has 2 values but REGNET.EMBED_DIMS has 4"),
        (["MODEL.MODEL_NAME", "RegNetY", "MODEL.ACT_CHECKPOINT", True], "RegNetY does not support it"),
        (["MODEL.MODEL_NAME", "EfficientNetV2", "MODEL.ACT_CHECKPOINT", 1], "EfficientNetV2 does not support it"),
        (["EFFICIENTNET.LAYERS", [1] * 5, "EFFICIENTNET.EMBED_DIMS", [8] * 5], "has 5 values; it needs 6"),
    ],
)
def test_impossible_configs(overrides: list, message: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(overrides)
    network = RegNetY if cfg.MODEL.MODEL_NAME == "RegNetY" else EfficientNetV2
    with pytest.raises(ConfigError, match=message):
        network.check_config(cfg)
