"""Differences between CPUs and GPUs."""

from __future__ import annotations

import torch

# Query of PyTorch for each dtype of fewer than 32 bits: whether oneDNN multiplies matrices of it on this CPU.
_CPU_QUERIES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def synchronize(device: torch.device) -> None:
    """Wait for all pending work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_fast_matmul(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether PyTorch has an optimized matrix multiplication for a dtype on a device.

    CPUs without the instructions multiply bfloat16 and float16 several times slower than float32, and operators that
    call oneDNN directly raise RuntimeError.
    """
    if device.type != "cpu" or dtype not in _CPU_QUERIES:
        return True
    query = getattr(torch.ops.mkldnn, _CPU_QUERIES[dtype], None)  # None where PyTorch is built without oneDNN
    return query is not None and bool(query())
