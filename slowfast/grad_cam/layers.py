"""The layers of a network whose outputs are maps: one vector of channels at each place of the image or clip.

A layer's class says so in `MAP_AXES`, the order of its output's axes: B batch, T time, H height, W width, C channels,
N tokens in the network's own order, which its `on_grid` puts in their places. Convolutions and batch norms need not.

Shapes: B clips or images, R rows of a layer's output (B, or B x frames where a network goes over clips frame by frame).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slowfast.config.nearest import did_you_mean, nearest_name
from slowfast.errors import UserError
from slowfast.utils.quote import plain

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
    return str(getattr(layer, "MAP_AXES", ""))


def channels_last(output: torch.Tensor, axes: str) -> torch.Tensor:
    """A layer's output with its places flattened: (R, places, C)."""
    return output.movedim(axes.index("C"), -1).flatten(1, -2)


def lay_out(heat: torch.Tensor, model: nn.Module, output: torch.Size, axes: str, clips: int) -> torch.Tensor:
    """One value a place at its place: (R, places) -> (clips, T, H, W), given the shape and axes of the output."""
    if "N" in axes:
        grid: Any = getattr(model, "on_grid", None)
        if grid is None:
            raise TypeError(f"{type(model).__name__} has a layer of tokens but no on_grid(values)")
        heat = grid(heat)  # R H W
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
    candidates = [(name, layer) for name, layer in model.named_modules() if name and map_axes(layer)]
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
