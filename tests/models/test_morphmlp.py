"""MorphMLP against a plain form of its equations, its own rules, and the image form's way into the video network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from slowfast.config.defaults import get_cfg
from slowfast.errors import ConfigError
from slowfast.models.morphmlp import Downsample, MorphMLP, MorphMLPImage, Stem
from slowfast.models.morphmlp_stages import MorphStages
from slowfast.models.weights import load_weights
from tests.random_weights import randomized

WIDTHS, CHUNKS = (16, 24, 32, 40), (4, 4, 8, 2)
SHAPE = {"layers": (1, 1, 2, 1), "embed_dims": WIDTHS, "segment_dims": CHUNKS, "num_classes": 7}


def small(frames: int = 6, bias: bool = True, **kwargs: object) -> MorphMLP:
    torch.manual_seed(0)
    return MorphMLP(num_frames=frames, qkv_bias=bias, **(SHAPE | kwargs))


class Plain:
    """The network as its equations read, from a state dict: no module, no shortcut."""

    def __init__(self, model: MorphMLP, chunks: tuple[int, ...] = CHUNKS) -> None:
        self.w, self.chunks = model.state_dict(), chunks

    def linear(self, key: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w[f"{key}.weight"], self.w.get(f"{key}.bias"))

    def norm(self, key: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{key}.weight"], self.w[f"{key}.bias"])

    def conv(self, key: str, x: torch.Tensor, stride: tuple, padding: tuple) -> torch.Tensor:
        return F.conv3d(x, self.w[f"{key}.weight"], self.w[f"{key}.bias"], stride, padding)

    def batch_norm(self, key: str, x: torch.Tensor) -> torch.Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.w[f"{key}.{name}"] for name in names))

    def mlp(self, key: str, x: torch.Tensor) -> torch.Tensor:
        return self.linear(f"{key}.fc2", F.gelu(self.linear(f"{key}.fc1", x)))

    def time(self, key: str, x: torch.Tensor) -> torch.Tensor:
        t, c = x.shape[1], x.shape[-1]
        g = max(d for d in range(1, t + 1) if c % d == 0)
        y = self.linear(f"{key}.mlp_t", rearrange(x, "b t h w (g s) -> b g h w (t s)", g=g))
        return self.linear(f"{key}.proj", rearrange(y, "b g h w (t s) -> b t h w (g s)", t=t))

    def chunked(self, key: str, x: torch.Tensor, length: int) -> torch.Tensor:
        y = rearrange(x, "b t h w c -> b t (h w) c")
        y = self.linear(key, rearrange(y, "b t (n l) (g s) -> b t n g (l s)", l=length, g=length))
        return rearrange(y, "b t n g (l s) -> b t (n l) (g s)", l=length).reshape(x.shape)

    def chunked_last(self, key: str, x: torch.Tensor, length: int) -> torch.Tensor:
        y = rearrange(x, "b t h w c -> b t (h w) c")
        y = self.linear(key, rearrange(y, "b t (l n) (g s) -> b t g n (l s)", l=length, g=length))
        return rearrange(y, "b t g n (l s) -> b t (l n) (g s)", l=length).reshape(x.shape)

    def space(self, key: str, x: torch.Tensor, length: int, last: bool) -> torch.Tensor:
        channels = self.linear(f"{key}.mlp_c", x)
        if last:
            branches = [self.chunked_last(f"{key}.mlp_h", x, length), channels]
        else:
            columns = self.chunked(f"{key}.mlp_h", x.transpose(2, 3), length).transpose(2, 3)
            branches = [columns, self.chunked(f"{key}.mlp_w", x, length), channels]
        scores = self.mlp(f"{key}.reweight", sum(branches).mean((1, 2, 3)))
        weights = rearrange(scores, "b (c k) -> k b 1 1 1 c", k=len(branches)).softmax(0)
        return self.linear(f"{key}.proj", sum(w * y for w, y in zip(weights, branches, strict=True)))

    def block(self, key: str, x: torch.Tensor, length: int, last: bool) -> torch.Tensor:
        xt = x + self.time(f"{key}.t_fc", self.norm(f"{key}.t_norm1", x))
        x = x + self.space(f"{key}.fc", self.norm(f"{key}.norm1", xt), length, last)
        return x + self.mlp(f"{key}.mlp", self.norm(f"{key}.norm2", x))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.batch_norm("patch_embed1.norm1", self.conv("patch_embed1.proj1", x, (2, 2, 2), (1, 1, 1))))
        x = self.batch_norm("patch_embed1.norm2", self.conv("patch_embed1.proj2", x, (1, 2, 2), (0, 1, 1)))
        for stage, length in enumerate(self.chunks, 1):
            if stage > 1:
                x = self.conv(f"patch_embed{stage}.proj", x, (1, 2, 2), (0, 1, 1))
            x = rearrange(x, "b c t h w -> b t h w c")
            if stage > 1:
                x = self.norm(f"patch_embed{stage}.norm", x)
            depth = len({key.split(".")[1] for key in self.w if key.startswith(f"blocks{stage}.")})
            for i in range(depth):
                x = self.block(f"blocks{stage}.{i}", x, length, last=stage == len(self.chunks))
            x = rearrange(x, "b t h w c -> b c t h w")
        x = rearrange(x, "b c t h w -> b (t h w) c")
        return self.linear("head", self.norm("norm", x).mean(1))


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 13])
@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_equals_the_plain_equations(frames: int, size: tuple[int, int]) -> None:
    model = randomized(small(frames))
    x = torch.randn(2, 3, frames, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(x), Plain(model)(x), rtol=1e-4, atol=1e-5)


def test_equals_the_plain_equations_without_branch_biases() -> None:
    model = randomized(small(bias=False))
    assert "blocks1.0.fc.mlp_h.bias" not in model.state_dict() and "blocks1.0.fc.proj.bias" in model.state_dict()
    x = torch.randn(2, 3, 6, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), Plain(model)(x), rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_of_the_plain_equations() -> None:
    model = randomized(small()).double()  # exact enough to distinguish a wrong gradient from rounding
    x = torch.randn(2, 3, 6, 32, 64, dtype=torch.double)
    model(x).square().sum().backward()
    plain = Plain(model)
    plain.w = plain.w | {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    plain(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain.w[name].grad, rtol=1e-6, atol=1e-9, msg=name)


def test_published_sizes() -> None:
    for frames, parameters in ((16, 47_039_154), (32, 47_463_018)):  # of the published S checkpoints
        with torch.device("meta"):
            model = MorphMLP(num_frames=frames)
        assert sum(p.numel() for p in model.parameters()) == parameters


def test_starts_as_a_network_without_time() -> None:
    model = small(frames=6).eval()
    x = torch.randn(1, 3, 6, 32, 64)
    with torch.no_grad():
        want = model(x)
        for key, value in model.state_dict().items():
            if ".t_norm1." in key:
                value.normal_()
        assert torch.equal(model(x), want)
    state = model.state_dict()
    assert state["blocks1.0.t_fc.proj.weight"].eq(1).all() and not state["blocks1.0.t_fc.proj.bias"].any()
    assert 0.015 < state["blocks3.0.mlp.fc1.weight"].std() < 0.025 and not state["blocks3.0.mlp.fc1.bias"].any()


@pytest.mark.parametrize("build", [small, partial(MorphMLPImage, **SHAPE)])
def test_stochastic_depth_rises_over_all_blocks(build: Callable[..., MorphStages]) -> None:
    model = build(drop_depth_rate=0.4)
    rates = [block.drop_path.rate for i in range(1, 5) for block in getattr(model, f"blocks{i}")]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_map_that_chunks_do_not_fill_names_stage_map_and_length() -> None:
    model = small(segment_dims=(4, 4, 8, 4))
    with pytest.raises(ConfigError, match=r"4 does not divide the 1x2 tokens of stage 4.* 2"):
        model(torch.randn(1, 3, 6, 32, 64))


def test_a_clip_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="6 frames, not 9"):
        small(frames=6)(torch.randn(1, 3, 9, 32, 64))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MORPH.LAYERS", [1, 1, 1]], "LAYERS has 3 values but MORPH.EMBED_DIMS has 4"),
        (["MORPH.LAYERS", [1, 1, 0, 1]], "above 0"),
        (["MORPH.SEGMENT_DIM", [14, 28, 30, 49]], "30 does not divide the 392 channels .* of stage 3.* 28"),
        (["DATA.TEST_CROP_SIZE", 256], "14 does not divide the 64x64 tokens of stage 1.*is 16"),
        (["DATA.TRAIN_CROP_SIZE", 192], "48x48 tokens of stage 1"),
    ],
)
def test_impossible_configs(overrides: list, message: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(overrides)
    with pytest.raises(ConfigError, match=message):
        MorphMLP.check_config(cfg)


def test_possible_configs() -> None:
    cfg = get_cfg()
    MorphMLP.check_config(cfg)
    cfg.merge_from_list(["TRAIN.ENABLE", False, "DATA.TRAIN_CROP_SIZE", 192])
    MorphMLP.check_config(cfg)


def image_network_logits(model: MorphMLP, image: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """The image form: Conv2d for Conv3d and no mixing in time, from image weights: (B, 3, H, W) -> (B, classes)."""
    plain = Plain(model)
    plain.w = state
    plain.time = lambda key, x: torch.zeros_like(x)
    plain.norm = partial(_norm_unless_time, plain.norm)
    plain.conv = partial(_conv2d, state)
    return plain(image[:, :, None])


def _norm_unless_time(norm, key: str, x: torch.Tensor) -> torch.Tensor:
    return x if ".t_norm1" in key else norm(key, x)


def _conv2d(state: dict, key: str, x: torch.Tensor, stride: tuple, padding: tuple) -> torch.Tensor:
    y = F.conv2d(x[:, :, 0], state[f"{key}.weight"], state[f"{key}.bias"], stride[1:], padding[1:])
    return y[:, :, None]


@pytest.mark.parametrize("frames", [1, 5, 6])
def test_image_weights_on_a_repeated_frame_give_the_image_networks_logits(frames: int) -> None:
    source = randomized(small(frames=frames)).state_dict()
    image_state = {
        key: value[:, :, 0].clone() if value.dim() == 5 else value.clone()
        for key, value in source.items()
        if "t_fc" not in key and "t_norm1" not in key
    }
    model = small(frames=frames).eval()
    model.load_state_dict(model.adapt_pretrained(image_state))
    image = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        video = model(image[:, :, None].expand(-1, -1, frames, -1, -1))
        torch.testing.assert_close(video, image_network_logits(model, image, image_state), rtol=1e-4, atol=1e-5)


def test_video_weights_pass_the_adaptation_unchanged() -> None:
    state = randomized(small()).state_dict()
    adapted = small().adapt_pretrained(state)
    assert adapted.keys() == state.keys() and all(torch.equal(adapted[key], state[key]) for key in state)


def test_the_stem_trains_in_bfloat16_on_a_cpu() -> None:
    """A convolution's gradient in bfloat16 crashed the process at this size."""
    torch.manual_seed(0)
    stem, x = Stem(112, False), torch.randn(1, 3, 2, 224, 224)
    wanted, gradients = torch.randn(1, 1, 56, 56, 112), []
    for enabled in (True, False):
        stem.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (stem(x).float() * wanted).sum().backward()
        gradients.append(stem.proj1.weight.grad.clone())
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


@pytest.mark.parametrize("frames", [1, 5, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_video_network_of_one_repeated_frame_gives_the_images_logits(frames: int, bias: bool, tmp_path) -> None:
    torch.manual_seed(0)
    image_network = randomized(MorphMLPImage(qkv_bias=bias, **SHAPE))
    video = MorphMLP(num_frames=frames, qkv_bias=bias, **SHAPE).eval()
    load_weights(video, video.adapt_pretrained(image_network.state_dict()), tmp_path)
    image = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        found = video(image[:, :, None].expand(-1, -1, frames, -1, -1))
        torch.testing.assert_close(found, image_network(image), rtol=1e-4, atol=1e-5)


def test_its_keys_are_the_video_networks_without_time() -> None:
    image, video = MorphMLPImage(**SHAPE).state_dict(), MorphMLP(num_frames=4, **SHAPE).state_dict()
    assert list(image) == [key for key in video if ".t_fc." not in key and ".t_norm1." not in key]


def test_downsampling_and_its_gradients_are_those_of_the_3d_convolution() -> None:
    torch.manual_seed(0)
    layer, x = Downsample(6, 10), torch.randn(2, 3, 8, 7, 6, requires_grad=True)  # B T H W C
    expected = layer.norm(layer.proj(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(layer(x), expected)
    inputs, upstream = (x, *layer.parameters()), torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(layer(x), inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    )
