"""Grad-CAM (Selvaraju et al., arXiv 1610.02391): how much each place of a layer's map speaks for a class.

Shapes: R rows of a layer's output, P places of a map, C channels, T frames, S side of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import UserError
from slowfast.grad_cam.layers import MapLayer, channels_last, lay_out, outputs_of

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
    with torch.enable_grad(), outputs_of([(layer.name, model.get_submodule(layer.name))]) as outputs:
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
