"""Linear layers with oneDNN's fused kernels for inference on CPUs, and counting of multiply-adds."""

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

from slowfast.utils.private_ops import FUSED_LINEAR, fused_linear, fused_linear_gelu, has_fused_linear, pack_weight

FUSED_ROWS = 16  # with fewer rows PyTorch's own kernel is faster

if has_fused_linear():

    @register_flop_formula(FUSED_LINEAR)
    def _fused_linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
        """Return the FLOPs of x (..., in) times weight (out, in), for PyTorch's FLOP counter."""
        return 2 * math.prod(x) * weight[0]


class Linear(nn.Linear):
    """nn.Linear with fused kernels for fp32 inference on CPUs: (..., in) -> (..., out).

    Bias and GELU need no extra pass over memory, and `pack` avoids reordering the weight for oneDNN in every call;
    together this saves a seventh of a network's time.
    """

    _packed: tuple[torch.Tensor, int] | None = None  # weight in oneDNN's order, and its version

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self._fuses(input):
            return super().forward(input)
        return fused_linear(input, self._reordered_weight(), self.bias)

    def gelu(self, input: torch.Tensor) -> torch.Tensor:
        """Return the exact GELU of forward(input)."""
        if not self._fuses(input):
            return F.gelu(self(input))
        return fused_linear_gelu(input, self._reordered_weight(), self.bias)

    @torch.no_grad()
    def pack(self) -> None:
        """Keep a copy of the weight in oneDNN's order until the weight changes or training starts.

        Changes are detected by the version of the tensor, which does not count writes through `weight.data`.
        """
        fits = self.weight.dtype == torch.float32 and self.weight.device.type == "cpu" and not self.training
        if fits and has_fused_linear():
            self._packed = pack_weight(self.weight.detach()), self.weight._version

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights cannot be copied.
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}

    def _reordered_weight(self) -> torch.Tensor:
        if self._packed is not None and self._packed[1] == self.weight._version:
            return self._packed[0]
        return self.weight

    def _fuses(self, x: torch.Tensor) -> bool:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        wanted = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or traced)
        floats = x.dtype == self.weight.dtype == torch.float32
        many = x.numel() >= FUSED_ROWS * self.in_features
        return wanted and floats and many and x.device.type == "cpu" and has_fused_linear()


def pack_linears(model: nn.Module) -> None:
    """Pack all Linear layers of a network in evaluation mode, which needs the memory of their weights a second time."""
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.pack()


def count_macs(model: nn.Module, inputs: Any, samples: int) -> float:
    """Return the multiply-adds per sample of the matrix multiplications and convolutions in a forward pass.

    They are counted on a copy on the meta device, in evaluation mode: nothing is computed, and no operators are fused,
    which the counter would miss (such as attention on CPUs). fvcore's FlopCountAnalysis is no alternative: it traces
    with TorchScript, which fails for most of these networks on the meta device.

    Args:
        model: The network.
        inputs: Inputs of the network.
        samples: Number of samples in the inputs.
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), inputs))
    return counter.get_total_flops() / 2 / samples
