"""Grad-CAM heat maps (Selvaraju et al., arXiv 1610.02391).

Notation: R rows of a layer's output, P positions of a feature map, C channels, T frames, H and W height and width, S
side of the clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import UserError
from slowfast.models.protocol import FeatureMap, Network, named_network
from slowfast.utils.text import did_you_mean, nearest_name, plain

DEFAULT_SIDE = 4  # minimum side of the feature map of the default layer


@dataclass(frozen=True)
class MapLayer:
    """Layer with a feature map.

    Args:
        name: Name of the layer in the model.
        axes: Order of the axes of its output, such as "BCTHW".
        frames: Frames of the feature map.
        height: Height of the feature map.
        width: Width of the feature map.
    """

    name: str
    axes: str
    frames: int
    height: int
    width: int

    @property
    def size(self) -> str:
        """Return the size as text."""
        frames = f"{self.frames} x " if self.frames > 1 else ""
        return f"{frames}{self.height} x {self.width}"


def map_axes(layer: nn.Module) -> str:
    """Return the order of the axes of a layer's feature map; "" for a layer without one."""
    if isinstance(layer, nn.Conv3d | nn.BatchNorm3d):
        return "BCTHW"
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
        return "BCHW"
    return layer.MAP_AXES if isinstance(layer, FeatureMap) else ""


def channels_last(output: torch.Tensor, axes: str) -> torch.Tensor:
    """Flatten the positions of a layer's output: (R, P, C)."""
    return output.movedim(axes.index("C"), -1).flatten(1, -2)


def to_grid(heat: torch.Tensor, model: nn.Module, output: torch.Size, axes: str, clips: int) -> torch.Tensor:
    """Arrange one value per position as a feature map: (R, P) -> (clips, T, H, W).

    Args:
        heat: Values.
        model: Model that contains the layer and defines the order of its tokens.
        output: Shape of the layer's output.
        axes: Order of its axes.
        clips: Number of clips.
    """
    if "N" in axes:
        if not isinstance(model, Network):
            raise TypeError(f"{type(model).__name__} has a feature map of tokens but no method on_grid(values)")
        heat = model.on_grid(heat)  # R H W
    else:
        heat = heat.unflatten(1, [output[axes.index(axis)] for axis in "THW" if axis in axes])
    heat = heat if heat.dim() == 4 else heat.unsqueeze(1)  # R T H W
    return heat.reshape(clips, -1, *heat.shape[2:])


@contextmanager
def capture_outputs(layers: Sequence[tuple[str, nn.Module]]) -> Iterator[dict[str, torch.Tensor]]:
    """Capture the last output of each layer by name while entered; later in-place layers work on a copy."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, output: Any) -> Any:
        if not isinstance(output, torch.Tensor):
            return output
        kept[name] = output
        return output.clone()

    hooks = [layer.register_forward_hook(lambda _, __, out, name=name: keep(name, out)) for name, layer in layers]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def find_map_layers(model: nn.Module, x: torch.Tensor) -> list[MapLayer]:
    """Return all layers with feature maps of several positions, in the order they run on one clip or image."""
    candidates = [(name, layer) for name, layer in named_network(model).named_modules() if name and map_axes(layer)]
    layers = dict(candidates)
    with capture_outputs(candidates) as outputs:
        model(x)
    found = []
    for name, output in outputs.items():
        axes = map_axes(layers[name])
        places = channels_last(output, axes)[..., 0]
        frames, height, width = to_grid(places, model, output.shape, axes, len(x)).shape[1:]
        if height * width > 1:
            found.append(MapLayer(name, axes, frames, height, width))
    return found


def default_layer(layers: Sequence[MapLayer]) -> MapLayer:
    """Return the last layer whose feature map has a sufficient resolution."""
    side = min(DEFAULT_SIDE, max(min(layer.height, layer.width) for layer in layers))
    return next(layer for layer in reversed(layers) if min(layer.height, layer.width) >= side)


def find_layer(layers: Sequence[MapLayer], name: str) -> MapLayer:
    """Return a layer by name. Raises UserError if there is none."""
    names = [layer.name for layer in layers]
    if name not in names:
        raise UserError(
            f"--layer: no layer {plain(name)} with a feature map.{did_you_mean(nearest_name(name, names))} "
            "--list-layers prints all names"
        )
    return layers[names.index(name)]


GRAD_CAM, GRADIENT_X_ACTIVATION = "Grad-CAM", "|gradient x activation|"
MIN_CONTRAST = 1e-6  # relative variation below which a heat map counts as constant


@dataclass(frozen=True)
class HeatMap:
    """Heat map of a class.

    Attributes:
        values: Values in [0, 1], (T, S, S); the maximum over the clip is 1.
        layer: Layer it was computed at.
        method: `GRAD_CAM` or `GRADIENT_X_ACTIVATION`.
        instead_of: Methods and layers that were tried first and gave a constant heat map.
    """

    values: torch.Tensor
    layer: MapLayer
    method: str
    instead_of: str = ""


def compute_heat_map(model: nn.Module, x: torch.Tensor, label: int, layers: Sequence[MapLayer]) -> HeatMap:
    """Compute the heat map of a class at the first layer where it is not constant.

    At each layer Grad-CAM is tried first, then the absolute gradient times activation.

    Args:
        model: Model with its weights.
        x: One clip (1, 3, T, S, S) or image (1, 3, S, S).
        label: The class.
        layers: Layers in the order to try.

    Raises:
        UserError: If the heat map is constant at all layers.
    """
    constant: list[str] = []
    for layer in layers:
        activation, gradient, shape = _at_layer(model, x, label, layer)
        methods = {GRAD_CAM: grad_cam, GRADIENT_X_ACTIVATION: gradient_times_activation}
        for method, combine in methods.items():
            places = combine(activation, gradient)
            heat = to_grid(places, model, shape, layer.axes, 1)[0]  # T' H W
            if not is_constant(heat):
                return HeatMap(_resize_like(heat / heat.max(), x), layer, method, ", ".join(constant))
            constant.append(f"{method} at {layer.name}")
    raise UserError(
        f"class {label} has a constant heat map at every layer: nothing to draw. Check TEST.CHECKPOINT_FILE_PATH"
    )


def _at_layer(
    model: nn.Module, x: torch.Tensor, label: int, layer: MapLayer
) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
    """Return a layer's output and the gradient of the class's logit, both (R, P, C), and the shape of the output."""
    with (
        torch.enable_grad(),
        capture_outputs([(layer.name, named_network(model).get_submodule(layer.name))]) as outputs,
    ):
        logits = model(x.clone().requires_grad_())
        output = outputs[layer.name]
        (gradient,) = torch.autograd.grad(logits[0, label], output, allow_unused=True)
    gradient = torch.zeros_like(output) if gradient is None else gradient
    if not (gradient.isfinite().all() and output.isfinite().all()):
        raise UserError(f"the activations at {layer.name} are not finite. Check TEST.CHECKPOINT_FILE_PATH")
    return channels_last(output.detach(), layer.axes), channels_last(gradient, layer.axes), output.shape


def grad_cam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Sum channels weighted by their mean gradients, then ReLU (equations 1 and 2): (R, P, C) -> (R, P)."""
    return (activation * gradient.mean(1, keepdim=True)).sum(-1).relu()


def gradient_times_activation(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Sum |gradient x activation| over channels: (R, P, C) -> (R, P)."""
    return (activation * gradient).abs().sum(-1)


def is_constant(heat: torch.Tensor) -> bool:
    """Return whether a nonnegative heat map is constant."""
    largest = float(heat.max())
    return largest <= 0 or largest - float(heat.min()) <= MIN_CONTRAST * largest


def _resize_like(heat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Resize a heat map (T', H, W) to the frames of the input by trilinear interpolation: (T, S, S)."""
    size = (x.shape[2] if x.dim() == 5 else 1, *x.shape[-2:])
    return F.interpolate(heat[None, None].float(), size, mode="trilinear", align_corners=False)[0, 0]
