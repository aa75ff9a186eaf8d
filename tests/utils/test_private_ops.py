"""Private PyTorch operators equal the public computations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from slowfast.utils import private_ops
from slowfast.utils.machine import has_fast_matmul

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_private_operators_equal_public_ones(dtype: torch.dtype, rows: int) -> None:
    if not private_ops.has_fused_linear() or not has_fast_matmul(dtype, CPU):
        pytest.skip(f"PyTorch has no optimized {dtype} matrix multiplication here")
    generator = torch.Generator().manual_seed(rows)
    x, residual = (torch.randn(rows, size, generator=generator).to(dtype) for size in (128, 96))
    weight, bias = (torch.randn(*size, generator=generator).to(dtype) for size in ((96, 128), (96,)))
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 0.2}
    linear, packed = F.linear(x, weight, bias), private_ops.pack_weight(weight)
    torch.testing.assert_close(private_ops.fused_linear(x, packed, bias), linear, **tolerance)
    torch.testing.assert_close(private_ops.fused_linear_gelu(x, packed, bias), F.gelu(linear), **tolerance)
    torch.testing.assert_close(private_ops.gelu_in_place(linear.clone()), F.gelu(linear), **tolerance)
    torch.testing.assert_close(private_ops.fused_linear_add(x, packed, bias, residual), residual + linear, **tolerance)
    numbers = torch.randint(-127, 128, (96, 128), generator=generator, dtype=torch.int8)
    scale = torch.rand(96, generator=generator).to(dtype) / 127
    dequantized = numbers.to(torch.float32) * scale.float()[:, None]
    found = private_ops.int8_linear(x, numbers, scale).float()
    torch.testing.assert_close(found, F.linear(x.float(), dequantized), **tolerance)


def test_gradient_of_embedding_bag_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    table, gradient = torch.randn(9, 4, generator=generator), torch.randn(3, 4, generator=generator)
    rows, starts = torch.tensor([8, 0, 3, 3, 5, 1, 2]), torch.tensor([0, 2, 6])
    bags = torch.tensor([0, 0, 1, 1, 1, 1, 2])
    found = private_ops.embedding_bag_weight_gradient(gradient, table, rows, starts, bags)
    torch.testing.assert_close(found, (table[rows] * gradient[bags]).sum(1))


def test_lerp_of_each_tensor() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors, ends = ([torch.randn(size, generator=generator) for size in (3, 70)] for _ in range(2))
    expected = [a.lerp(b, 0.3) for a, b in zip(tensors, ends, strict=True)]
    private_ops.lerp_each(tensors, ends, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))
