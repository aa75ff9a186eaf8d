"""Grad-CAM (Selvaraju et al., arXiv 1610.02391): how much each place of a layer's map speaks for a class.

Shapes: R rows of a layer's output, P places of a map, C channels, T frames, S side of the clip.
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
from slowfast.utils.suggest import did_you_mean, nearest_name
from slowfast.utils.text import plain

USUAL_SIDE = 4  # a map of fewer places a side shows too little to be taken unasked


@dataclass(frozen=True)
class MapLayer:
    """A layer that gives maps of `frames` x `height` x `width` places."""

    name: str
    axes: str
    frames: int
    height: int
    width: int

    @property
    def size(self) -> str:
        """As a user reads it."""
        frames = f"{self.frames} x " if self.frames > 1 else ""
        return f"{frames}{self.height} x {self.width}"


def map_axes(layer: nn.Module) -> str:
    """Order of the axes of a layer's maps; "" for a layer that gives none."""
    if isinstance(layer, nn.Conv3d | nn.BatchNorm3d):
        return "BCTHW"
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
        return "BCHW"
    return layer.MAP_AXES if isinstance(layer, FeatureMap) else ""


def channels_last(output: torch.Tensor, axes: str) -> torch.Tensor:
    """A layer's output with its places flattened: (R, places, C)."""
    return output.movedim(axes.index("C"), -1).flatten(1, -2)


def lay_out(heat: torch.Tensor, model: nn.Module, output: torch.Size, axes: str, clips: int) -> torch.Tensor:
    """One value a place at its place: (R, places) -> (clips, T, H, W), given the shape and axes of the output."""
    if "N" in axes:
        if not isinstance(model, Network):
            raise TypeError(f"{type(model).__name__} has a layer of tokens but no on_grid(values)")
        heat = model.on_grid(heat)  # R H W
    else:
        heat = heat.unflatten(1, [output[axes.index(axis)] for axis in "THW" if axis in axes])
    heat = heat if heat.dim() == 4 else heat.unsqueeze(1)  # R T H W
    return heat.reshape(clips, -1, *heat.shape[2:])


@contextmanager
def outputs_of(layers: Sequence[tuple[str, nn.Module]]) -> Iterator[dict[str, torch.Tensor]]:
    """While this is open, the last output of each layer, by name; a later layer that writes over it gets a copy."""
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


def map_layers(model: nn.Module, x: torch.Tensor) -> list[MapLayer]:
    """Every layer with maps of more than one place, in the order they run for an input x of one clip or image."""
    candidates = [(name, layer) for name, layer in named_network(model).named_modules() if name and map_axes(layer)]
    layers = dict(candidates)
    with outputs_of(candidates) as outputs:
        model(x)
    found = []
    for name, output in outputs.items():
        axes = map_axes(layers[name])
        places = channels_last(output, axes)[..., 0]
        frames, height, width = lay_out(places, model, output.shape, axes, len(x)).shape[1:]
        if height * width > 1:
            found.append(MapLayer(name, axes, frames, height, width))
    return found


def usual_layer(layers: Sequence[MapLayer]) -> MapLayer:
    """The last layer with maps of at least USUAL_SIDE x USUAL_SIDE places, or of the finest there are."""
    side = min(USUAL_SIDE, max(min(layer.height, layer.width) for layer in layers))
    return next(layer for layer in reversed(layers) if min(layer.height, layer.width) >= side)


def find_layer(layers: Sequence[MapLayer], name: str) -> MapLayer:
    """Return the layer of that name; UserError where there is none."""
    names = [layer.name for layer in layers]
    if name not in names:
        raise UserError(
            f"--layer: no layer {plain(name)} with a feature map.{did_you_mean(nearest_name(name, names))} "
            "--list-layers prints all names"
        )
    return layers[names.index(name)]


GRAD_CAM, PRODUCT = "Grad-CAM", "|gradient x activation|"
FLAT = 1e-6  # a map whose values differ by less than this share of the largest shows nothing


@dataclass(frozen=True)
class Heat:
    """Where a network looks for a class, and how that was found."""

    values: torch.Tensor  # (T, S, S) in [0, 1], 1 at the strongest place of the clip
    layer: MapLayer
    method: str
    instead_of: str = ""  # what was tried first and showed nothing


def heat_of(model: nn.Module, x: torch.Tensor, label: int, layers: Sequence[MapLayer]) -> Heat:
    """The heat of a class for one clip (1, 3, T, S, S) or image (1, 3, S, S), at the first layer that shows any.

    Of each layer Grad-CAM is taken; where that is 0 or constant everywhere, the absolute gradient x activation.
    Raises UserError where no layer shows anything.
    """
    blank: list[str] = []
    for layer in layers:
        activation, gradient, shape = _at_layer(model, x, label, layer)
        for method, places in ((GRAD_CAM, grad_cam(activation, gradient)), (PRODUCT, product(activation, gradient))):
            heat = lay_out(places, model, shape, layer.axes, 1)[0]  # T' H W
            if not is_blank(heat):
                return Heat(_at_size_of(heat / heat.max(), x), layer, method, ", ".join(blank))
            blank.append(f"{method} at {layer.name}")
    raise UserError(f"class {label} has no gradient that depends on the place, in any layer: there is nothing to draw")


def _at_layer(
    model: nn.Module, x: torch.Tensor, label: int, layer: MapLayer
) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
    """The layer's output and the gradient of the class's logit in it, both (R, P, C), and the output's shape."""
    with torch.enable_grad(), outputs_of([(layer.name, named_network(model).get_submodule(layer.name))]) as outputs:
        logits = model(x.clone().requires_grad_())
        output = outputs[layer.name]
        (gradient,) = torch.autograd.grad(logits[0, label], output, allow_unused=True)
    gradient = torch.zeros_like(output) if gradient is None else gradient
    if not (gradient.isfinite().all() and output.isfinite().all()):
        raise UserError(f"the network's values at {layer.name} are not finite: are these the weights you mean?")
    return channels_last(output.detach(), layer.axes), channels_last(gradient, layer.axes), output.shape


def grad_cam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """ReLU of the channels' sum, each weighed by the mean of its gradient (equations 1 and 2): (R, P, C) -> (R, P)."""
    return (activation * gradient.mean(1, keepdim=True)).sum(-1).relu()


def product(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The sum over channels of |gradient x activation|: (R, P, C) -> (R, P)."""
    return (activation * gradient).abs().sum(-1)


def is_blank(heat: torch.Tensor) -> bool:
    """Whether a map of values from 0 shows nothing: all are 0, or all are the same."""
    most = float(heat.max())
    return most <= 0 or most - float(heat.min()) <= FLAT * most


def _at_size_of(heat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A map (T', H, W) scaled to the frames of the input, linearly: (T, S, S)."""
    size = (x.shape[2] if x.dim() == 5 else 1, *x.shape[-2:])
    return F.interpolate(heat[None, None].float(), size, mode="trilinear", align_corners=False)[0, 0]
