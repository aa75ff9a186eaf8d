"""Linear kernels for inference, and counting of multiply-adds."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

# oneDNN's product with its bias and what follows in one pass; PyTorch itself calls it only from compiled graphs.
FUSED_PRODUCT: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # None where PyTorch is built without oneDNN
FUSED_ROWS = 16  # with fewer rows PyTorch's own product is faster

if FUSED_PRODUCT is not None:

    @register_flop_formula(FUSED_PRODUCT)
    def _fused_product_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
        """For PyTorch's FLOP counter: x (..., in), weight (out, in)."""
        return 2 * math.prod(x) * weight[0]


class Linear(nn.Linear):
    """nn.Linear, faster in float32 on CPUs where no gradient is wanted: (..., in) -> (..., out).

    There the bias and a GELU behind it cost no passes over memory of their own, and `pack` saves putting the weight
    into oneDNN's order at every call: together a seventh of a network's time.
    """

    _packed: tuple[torch.Tensor, int] | None = None  # the weight in oneDNN's order, and its version

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self._fuses(input):
            return super().forward(input)
        return FUSED_PRODUCT(input, self._weight_in_order(), self.bias, "none", [], "")

    def gelu(self, input: torch.Tensor) -> torch.Tensor:
        """The exact GELU of forward(input)."""
        if not self._fuses(input):
            return F.gelu(self(input))
        return FUSED_PRODUCT(input, self._weight_in_order(), self.bias, "gelu", [], "none")

    @torch.no_grad()
    def pack(self) -> None:
        """Keep a second copy of the weight in oneDNN's order, until the weight changes or training begins.

        A change is known by the tensor's version, which writing through `weight.data` does not raise.
        """
        fits = self.weight.dtype == torch.float32 and self.weight.device.type == "cpu" and not self.training
        if fits and FUSED_PRODUCT is not None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach()), self.weight._version

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}  # it cannot be copied

    def _weight_in_order(self) -> torch.Tensor:
        if self._packed is not None and self._packed[1] == self.weight._version:
            return self._packed[0]
        return self.weight

    def _fuses(self, x: torch.Tensor) -> bool:
        for_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
        wanted = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or for_graph)
        floats = x.dtype == self.weight.dtype == torch.float32
        many = x.numel() >= FUSED_ROWS * self.in_features
        return wanted and floats and many and x.device.type == "cpu" and FUSED_PRODUCT is not None


def pack_linears(model: nn.Module) -> None:
    """Call `Linear.pack` on every Linear of a network in evaluation, which needs its weights' memory once more."""
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.pack()


def count_macs(model: nn.Module, inputs: Any, samples: int) -> float:
    """Multiply-adds of the matrix products and convolutions in a forward pass over `inputs`, for one of its samples.

    Counted on a copy on the meta device, in evaluation: nothing is computed, and no operator is fused with others,
    which the counter would not see (as attention on CPUs). (fvcore's FlopCountAnalysis is no alternative: it traces
    with TorchScript, which fails for most of these networks on the meta device.)
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), inputs))
    return counter.get_total_flops() / 2 / samples
