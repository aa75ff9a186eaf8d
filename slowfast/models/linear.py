"""Linear layers with the fastest kernels for inference on CPUs, and counting of multiply-adds."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from slowfast.utils.machine import fastest, measured_choice
from slowfast.utils.private_ops import (
    FUSED_LINEAR,
    fused_linear,
    fused_linear_gelu,
    gelu_in_place,
    has_fused_linear,
    pack_weight,
)

FUSED_ROWS = 16  # for fewer rows, PyTorch's own kernel is faster
MEASURED_MACS = 5_000_000  # smaller products take less than 0.1 ms and are not worth measuring
# Kernels: PyTorch's own (MKL on x86), oneDNN's with its fused GELU, and oneDNN's followed by PyTorch's GELU.
PLAIN, FUSED, SPLIT = "plain", "fused", "split"


@functools.cache
def _kernels(gelu: bool) -> tuple[str, ...]:
    """Return the kernels of a Linear layer, with or without GELU; the first is used without measurement."""
    if not gelu:
        return FUSED, PLAIN
    # oneDNN's GELU takes several times as long as PyTorch's without AVX-512.
    return (FUSED, SPLIT, PLAIN) if "AVX512" in torch.backends.cpu.get_cpu_capability() else (SPLIT, FUSED, PLAIN)


if has_fused_linear():

    @register_flop_formula(FUSED_LINEAR)
    def _fused_linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
        """Return the FLOPs of x (..., in) times weight (out, in), for PyTorch's FLOP counter."""
        return 2 * math.prod(x) * weight[0]


class Linear(nn.Linear):
    """nn.Linear with faster kernels for fp32 inference on CPUs: (..., in) -> (..., out).

    oneDNN adds bias and GELU without an extra pass over memory, and `pack` avoids reordering the weight in every call.
    Which library is faster depends on the CPU and the sizes: it is measured for packed layers and follows a fixed rule
    for others, so that results without `pack` depend on the CPU alone.
    """

    _packed: tuple[torch.Tensor, int] | None = None  # weight in oneDNN's order, and its version
    _measured = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self._fuses(input):
            return super().forward(input)
        return self._compute(self._kernel(input, gelu=False), input, gelu=False)

    def gelu(self, input: torch.Tensor) -> torch.Tensor:
        """Return the exact GELU of forward(input)."""
        if not self._fuses(input):
            return F.gelu(self(input))
        return self._compute(self._kernel(input, gelu=True), input, gelu=True)

    @torch.no_grad()
    def pack(self, measured: bool = True) -> None:
        """Keep a copy of the weight in oneDNN's order until the weight changes or training starts.

        Changes are detected by the version of the tensor, which does not count writes through `weight.data`.

        Args:
            measured: Choose the fastest kernel by measurement. False if training depends on the result, which must not
                depend on the machine's speed.
        """
        fits = self.weight.dtype == torch.float32 and self.weight.device.type == "cpu" and not self.training
        if fits and has_fused_linear():
            self._packed = pack_weight(self.weight.detach()), self.weight._version
            self._measured = measured

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights cannot be copied.
        return {key: value for key, value in self.__dict__.items() if key not in ("_packed", "_measured")}

    def _reordered_weight(self) -> torch.Tensor:
        if self._packed is not None and self._packed[1] == self.weight._version:
            return self._packed[0]
        return self.weight

    def _kernel(self, x: torch.Tensor, gelu: bool) -> str:
        """Return the kernel to use for an input."""
        kernels = _kernels(gelu)
        packed = self._reordered_weight() is not self.weight
        if not (self._measured and packed) or x.numel() * self.out_features < MEASURED_MACS:
            return kernels[0]
        # Row counts are rounded up to a power of two to share measurements.
        bits = (x.numel() // self.in_features).bit_length()
        name = "linear" + " gelu" * gelu + " bias" * (self.bias is not None)
        key = f"{name} 2^{bits} {self.in_features} {self.out_features}"
        candidates = {kernel: partial(self._compute, kernel, x, gelu) for kernel in kernels}
        return measured_choice(key, kernels, lambda: fastest(candidates))

    def _compute(self, kernel: str, x: torch.Tensor, gelu: bool) -> torch.Tensor:
        """Compute the linear layer of x, optionally with GELU, using one of the kernels."""
        if gelu and kernel == FUSED:
            return fused_linear_gelu(x, self._reordered_weight(), self.bias)
        if kernel == PLAIN:
            y = F.linear(x, self.weight, self.bias)
        else:
            y = fused_linear(x, self._reordered_weight(), self.bias)
        return gelu_in_place(y) if gelu else y

    def _fuses(self, x: torch.Tensor) -> bool:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        wanted = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or traced)
        floats = x.dtype == self.weight.dtype == torch.float32
        many = x.numel() >= FUSED_ROWS * self.in_features
        return wanted and floats and many and x.device.type == "cpu" and has_fused_linear()


def pack_linears(model: nn.Module, measured: bool = True) -> None:
    """Pack all Linear layers of a network in evaluation mode, which doubles the memory of their weights.

    Args:
        model: The network.
        measured: See :meth:`Linear.pack`.
    """
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.pack(measured)


def count_macs(model: nn.Module, inputs: Any, samples: int) -> float:
    """Count the multiply-adds per sample of the matrix multiplications and convolutions in a forward pass.

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
