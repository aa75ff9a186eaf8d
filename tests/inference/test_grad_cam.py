"""Grad-CAM: formula, positions of tokens, layers of every network, and no blank heat maps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from video_files import write_video

from slowfast.cli.main import main
from slowfast.errors import UserError
from slowfast.inference.grad_cam import (
    GRAD_CAM,
    GRADIENT_X_ACTIVATION,
    capture_outputs,
    compute_heat_map,
    default_layer,
    find_map_layers,
    is_constant,
    map_axes,
)
from slowfast.models.eat_pixel_order import PIXEL_ORDERS, pixel_order
from slowfast.models.evmlp import from_nested, nested_patches
from slowfast.models.protocol import named_network
from slowfast.visualization.heat_map import overlay
from tests.models.tiny_networks import FORMS, inputs, scramble, tiny

EMPTY = str(ROOT / "tests" / "empty.yaml")
PICTURES = [name for name in sorted(FORMS) if isinstance(inputs(name, 1), torch.Tensor)]


class Plain(nn.Module):
    """1 x 1 convolution, mean and linear layer: everything can be computed by hand."""

    def __init__(self, head: list[list[float]]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.head = nn.Linear(2, len(head), bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None])
            self.head.weight.copy_(torch.tensor(head))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).mean((2, 3)))


def image() -> torch.Tensor:
    return torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_the_formula() -> None:
    model, x = Plain([[1.0, -0.5], [0.0, 0.0]]), image()
    (layer,) = find_map_layers(model, x)
    heat = compute_heat_map(model, x, 0, [layer])
    wanted = (1.0 * x[0, 0] - 0.5 * x[0, 1]).relu()  # both gradients' means are the head's weights / 36
    assert heat.method == GRAD_CAM and not heat.instead_of
    torch.testing.assert_close(heat.values[0], wanted / wanted.max())


def test_a_map_that_is_zero_everywhere_is_replaced_and_said() -> None:
    model, x = Plain([[-1.0, -1.0]]), image()  # all evidence is against the class
    heat = compute_heat_map(model, x, 0, find_map_layers(model, x))
    assert heat.method == GRADIENT_X_ACTIVATION and heat.instead_of == "Grad-CAM at conv"
    wanted = x[0, 0] + x[0, 1]
    torch.testing.assert_close(heat.values[0], wanted / wanted.max())


def test_no_gradient_anywhere_is_an_error() -> None:
    model, x = Plain([[0.0, 0.0]]), image()
    with pytest.raises(UserError, match="nothing to draw"):
        compute_heat_map(model, x, 0, find_map_layers(model, x))
    with pytest.raises(UserError, match="not finite"):
        compute_heat_map(Plain([[float("nan"), 0.0]]), x, 0, find_map_layers(model, x))


def test_blank_maps() -> None:
    assert is_constant(torch.zeros(2, 3)) and is_constant(torch.full((2, 3), 5.0))
    assert not is_constant(torch.tensor([1.0, 1.1]))


def test_a_layer_that_writes_over_its_input_does_not_change_what_was_kept() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(inplace=True)).eval()
    with capture_outputs([("0", model[0])]) as outputs:
        model(image() - 0.5)
    assert (outputs["0"] < 0).any()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4))
def test_nested_patches_go_back_to_their_places(sides: list[int]) -> None:
    side = int(np.prod(sides))
    grid = torch.arange(side * side).reshape(1, 1, side, side).float()
    in_order = nested_patches(grid, [1, *sides]).flatten(1)  # patches of one pixel
    assert torch.equal(from_nested(in_order, sides), grid[:, 0])


@pytest.mark.parametrize("order", sorted(PIXEL_ORDERS))
def test_tokens_of_every_pixel_order_go_back_to_their_places(order: str) -> None:
    model = tiny("EAT", EAT__PIXEL_ORDER=order)
    side, patch = 32, 8
    values = torch.arange(16.0)[None]
    found = model.on_grid(values)[0]
    plain = np.empty(side * side)
    plain[pixel_order(order, side, patch)] = np.repeat(np.arange(16), patch * patch)  # patch of each pixel
    found = found.repeat_interleave(side // found.shape[0], 0).repeat_interleave(side // found.shape[1], 1)
    assert np.array_equal(found.numpy(), plain.reshape(side, side))


@pytest.mark.parametrize("name", PICTURES)
def test_every_network_has_layers_to_look_at(name: str) -> None:
    model, x = scramble(tiny(name)).eval(), inputs(name, 1)
    layers = find_map_layers(model, x)
    usual = default_layer(layers)
    assert min(usual.height, usual.width) >= 4 and usual.name == next(
        layer.name for layer in reversed(layers) if min(layer.height, layer.width) >= 4
    )
    heat = compute_heat_map(model, x, 1, [usual, *layers])
    assert heat.values.shape == (x.shape[2] if x.dim() == 5 else 1, 32, 32)
    assert 0 <= heat.values.min() < heat.values.max() <= 1 and not is_constant(heat.values)
    assert all(map_axes(named_network(model).get_submodule(layer.name)) for layer in layers)


def test_a_frame_that_changes_alone_is_where_the_heat_is() -> None:
    model, x = scramble(tiny("evMLP framewise")).eval(), inputs("evMLP framewise", 1)
    layer = next(layer for layer in find_map_layers(model, x) if layer.name == "blks.0.2")
    heat = compute_heat_map(model, x, 0, [layer])
    changed = x.clone()
    changed[:, :, 3, :4, 28:] += 1.0  # the first stage's patch in the top right corner of frame 3
    difference = (compute_heat_map(model, changed, 0, [layer]).values * 1.0 - heat.values).abs()
    other = difference[[0, 1, 5, 6]]
    assert difference[3].max() > 0
    assert other.max() <= difference[3].max() or torch.allclose(other, torch.zeros_like(other), atol=1e-6)


def draw(folder: Path, *words: object) -> int:
    return main(
        ["grad-cam", "--cfg", EMPTY, *map(str, words), *map(str, tiny_settings(folder / "none", folder / "out"))]
    )


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "clip.mp4", size=(51, 77), pix_fmt="yuv444p")
    (tmp_path / "text.mp4").write_text("no video")
    assert draw(tmp_path, video, tmp_path / "text.mp4", "--layer", "patch_embed1", "--class", 3) == 0
    out = capsys.readouterr().out
    assert "heat map of 3" in out and "text.mp4 cannot be read" in out
    drawn = cv2.imread(str(tmp_path / "out" / "grad_cam" / "clip.png"))
    assert drawn.shape[1] > 400 and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "clip.mp4")
    assert draw(tmp_path, "--list-layers") == 0
    assert "blocks1.0" in capsys.readouterr().out
    for words, part in (
        ((video, "--layer", "bloks1.0"), "Did you mean blocks1.0?"),
        ((video, "--class", "9"), "a number from 0 to 7"),
        ((tmp_path / "gone.mp4",), "does not exist"),
        ((), "are required: FILE_OR_FOLDER"),
    ):
        assert draw(tmp_path, *words) == 2
        err = capsys.readouterr().err
        assert part in err and err.count("\n") == 1


def test_the_overlay_is_half_frame_half_heat() -> None:
    frames = np.full((1, 2, 2, 3), 100, np.uint8)
    heat = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    found = overlay(frames, heat)
    assert found[0, 0, 0].max() <= 55 and found[0, 0, 1].min() > 120  # near black, light yellow
    grays = np.linspace(0, 1, 256)[None, None]
    lightness = cv2.cvtColor(overlay(np.zeros((1, 1, 256, 3), np.uint8), grays)[0], cv2.COLOR_RGB2LAB)[0, :, 0]
    assert (np.diff(lightness.astype(int)) >= -1).all() and lightness[-1] > 100  # never darker for more heat
