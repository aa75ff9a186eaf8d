"""ConvMLP against a plain implementation of its equations, and its checks."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from slowfast.config.defaults import get_cfg
from slowfast.errors import ConfigError
from slowfast.models.convmlp import ConvMLP
from slowfast.models.weights import load_weights, read_weights
from tests.random_weights import randomized


def small(**kwargs: object) -> ConvMLP:
    torch.manual_seed(0)
    settings = {
        "layers": (2, 1),
        "embed_dims": (12, 20),
        "mlp_ratios": (2, 3),
        "conv_dim": 8,
        "num_classes": 7,
    } | kwargs
    return ConvMLP(**settings)


class Plain:
    """The network as its equations read, on (B, C, H, W) throughout, from a state dict."""

    def __init__(self, model: ConvMLP) -> None:
        self.w = model.state_dict()

    def conv(self, key: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = self.w[f"{key}.weight"]
        return F.conv2d(x, weight, self.w.get(f"{key}.bias"), stride, weight.shape[-1] // 2, groups=groups)

    def conv_norm_relu(self, key: str, number: int, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        x = self.conv(f"{key}.{number}", x, stride)
        return F.relu(F.batch_norm(x, *(self.w[f"{key}.{number + 1}.{name}"] for name in names)))

    def norm(self, key: str, x: torch.Tensor) -> torch.Tensor:
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
        weight, bias = (self.w[f"{key}.{name}"][:, None, None] for name in ("weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def mlp(self, key: str, x: torch.Tensor) -> torch.Tensor:
        for name in ("fc1", "fc2"):
            weight = self.w[f"{key}.{name}.weight"][:, :, None, None]
            x = F.conv2d(F.gelu(x) if name == "fc2" else x, weight, self.w[f"{key}.{name}.bias"])
        return x

    def block(self, key: str, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mlp(f"{key}.channel_mlp1", self.norm(f"{key}.norm1", x))
        x = self.conv(f"{key}.connect", self.norm(f"{key}.connect_norm", x), groups=x.shape[1])
        return x + self.mlp(f"{key}.channel_mlp2", self.norm(f"{key}.norm2", x))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        for number, stride in ((0, 2), (3, 1), (6, 1)):
            x = self.conv_norm_relu("tokenizer.block", number, x, stride)
        x = F.max_pool2d(x, 3, 2, 1)
        for i in range(2):
            y = x
            for number in (0, 3, 6):
                y = self.conv_norm_relu(f"conv_stages.conv_blocks.{i}", number, y)
            x = x + y
        x = self.conv("conv_stages.downsample", x, stride=2)
        x = self.block("stages.0.blocks.1", self.block("stages.0.blocks.0", x))
        x = self.block("stages.1.blocks.0", self.conv("stages.0.downsample_mlp.downsample", x, stride=2))
        return F.linear(self.norm("norm", x).mean((2, 3)), self.w["head.weight"], self.w["head.bias"])


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_equals_the_plain_equations(size: tuple[int, int]) -> None:
    model = randomized(small())
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(x), Plain(model)(x), rtol=1e-4, atol=1e-5)


def test_initial_values() -> None:
    model = small(embed_dims=(64, 128), conv_dim=64)
    conv = model.conv_stages.conv_blocks[0][3].weight
    assert conv.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)  # fan out, gain of ReLU
    assert model.stages[1].blocks[0].channel_mlp1.fc1.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert not model.conv_stages.downsample.bias.any() and not model.head.bias.any()


def test_stochastic_depth_rises_within_each_stage() -> None:
    model = small(layers=(3, 1), drop_depth_rate=0.4)
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in model.stages]
    assert rates == [pytest.approx([0, 0.2, 0.4]), [0]]


def test_paddle_weights_load(tmp_path: Path) -> None:
    source, target = randomized(small()), small().eval()
    content: dict = {"StructuredToParameterName@@": {}}
    for key, value in source.state_dict().items():
        names = {"running_mean": "_mean", "running_var": "_variance"}
        layer, _, name = key.rpartition(".")
        if name != "num_batches_tracked":
            content[f"{layer}.{names.get(name, name)}"] = (value.T if value.dim() == 2 else value).numpy()
    path = tmp_path / "convmlp.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=4))
    load_weights(target, read_weights(path, "paddle", target), path)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["CONVMLP.LAYERS", [2, 4]],
            "CONVMLP.LAYERS has 2 values but CONVMLP.EMBED_DIMS has 3; both need one",
        ),
        (["CONVMLP.CONV_DIM", 63], "even, not 63"),
    ],
)
def test_impossible_configs(overrides: list, message: str) -> None:
    cfg = get_cfg()
    ConvMLP.check_config(cfg)
    cfg.merge_from_list(overrides)
    with pytest.raises(ConfigError, match=message):
        ConvMLP.check_config(cfg)


def test_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes images.*MODEL.FRAMEWISE"):
        small()(torch.randn(1, 3, 4, 32, 32))
