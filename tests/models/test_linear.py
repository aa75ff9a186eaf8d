"""Fused Linear against PyTorch's, and the choice between them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slowfast.models import linear as module
from slowfast.models.layers import Mlp, conv_then_norm
from slowfast.models.linear import FUSED, PLAIN, SPLIT, Linear, pack_linears
from slowfast.utils import private_ops


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 4, 5), (50, 5), (2, 3, 40, 5), (0, 5)])
def test_equals_pytorchs_linear_with_and_without_gradients(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(5, 6, bias=bias), torch.randn(shape)
    want = F.linear(x, layer.weight, layer.bias)
    turned = x.transpose(0, -1).contiguous().transpose(0, -1)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        for argument in (x, turned):
            with context():
                torch.testing.assert_close(layer(argument), want)
                torch.testing.assert_close(layer.gelu(argument), F.gelu(want))


def test_fuses_in_float32_without_gradients_only(monkeypatch: pytest.MonkeyPatch) -> None:
    if private_ops.FUSED_LINEAR is None:
        pytest.skip("PyTorch is built without oneDNN")
    calls = []

    def product(*args: object) -> torch.Tensor:
        calls.append(args)
        return torch.zeros(30, 6)

    layer, x = Linear(5, 6), torch.randn(30, 5)
    monkeypatch.setattr(private_ops, "FUSED_LINEAR", product)
    layer(x), layer.gelu(x)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == layer.gelu(x).dtype == torch.bfloat16
        Linear(5, 6).double()(x.double())
        torch.jit.trace(layer, x, check_trace=False)  # the check calls the layer itself
        layer(x[:3]), layer.gelu(x[:3])  # a few rows
        assert not calls
        layer(x), layer.gelu(x)
    assert len(calls) == 2
    monkeypatch.setattr(private_ops, "FUSED_LINEAR", None)
    with torch.no_grad():
        assert layer(x).any()


def test_a_flop_counter_counts_it() -> None:
    layer, x = Mlp(5, 6, 7), torch.randn(2, 30, 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    assert counter.get_total_flops() == 2 * 2 * 30 * (5 * 6 + 6 * 7)


def test_gradients_are_those_of_its_parts() -> None:
    torch.manual_seed(0)
    layer, x = Linear(5, 6), torch.randn(3, 5, requires_grad=True)
    found = torch.autograd.grad(layer.gelu(x).sum(), (x, layer.weight, layer.bias))
    want = torch.autograd.grad(F.gelu(F.linear(x, layer.weight, layer.bias)).sum(), (x, layer.weight, layer.bias))
    assert all(torch.equal(f, w) for f, w in zip(found, want, strict=True))


def packed(layer: Linear) -> bool:
    return layer._reordered_weight() is not layer.weight


@pytest.mark.skipif(private_ops.FUSED_LINEAR is None, reason="PyTorch is built without oneDNN")
def test_a_packed_layer_gives_the_same_until_its_weight_changes() -> None:
    torch.manual_seed(0)
    layer, x = Linear(33, 70).eval(), torch.randn(50, 33)
    pack_linears(layer)
    assert packed(layer)
    for rows in (x, x[:1], torch.randn(300, 33)):
        with torch.inference_mode():
            torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias))
            torch.testing.assert_close(layer.gelu(rows), F.gelu(F.linear(rows, layer.weight, layer.bias)))
    with torch.no_grad():
        layer.weight.mul_(2)
        assert not packed(layer)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    layer.pack()
    layer.load_state_dict({key: value + 1 for key, value in layer.state_dict().items()})
    assert not packed(layer)


@pytest.mark.skipif(private_ops.FUSED_LINEAR is None, reason="PyTorch is built without oneDNN")
def test_packing_ends_with_training_and_is_not_copied() -> None:
    layer = Linear(5, 6).eval()
    layer.pack()
    assert not packed(copy.deepcopy(layer)) and not packed(pickle.loads(pickle.dumps(layer)))
    assert packed(layer) and not packed(layer.train().eval())
    layer.train().pack()
    assert not packed(layer)
    double = Linear(5, 6).double().eval()
    double.pack()
    assert not packed(double)


@pytest.mark.skipif(private_ops.FUSED_LINEAR is None, reason="PyTorch is built without oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [PLAIN, FUSED, SPLIT])
def test_all_kernels_give_the_same(kernel: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(33, 70, bias=bias).eval(), torch.randn(2, 40, 33)
    want = F.linear(x, layer.weight, layer.bias)
    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(layer._compute(kernel, x, gelu=False), want)
            torch.testing.assert_close(layer._compute(kernel, x, gelu=True), F.gelu(want))
        layer.pack()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the choices that are measured; the last kernel is always the fastest."""
    keys: list[str] = []

    def choose(key: str, choices: Sequence[str], measure: Callable[[], str]) -> str:
        keys.append(key)
        assert measure() in choices
        return choices[-1]

    monkeypatch.setattr(module, "measured_choice", choose)
    monkeypatch.setattr(module, "MEASURED_MACS", 40 * 33 * 70)
    return keys


@pytest.mark.skipif(private_ops.FUSED_LINEAR is None, reason="PyTorch is built without oneDNN")
def test_only_packed_layers_with_many_rows_are_measured(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(33, 70).eval(), torch.randn(40, 33)
    with torch.inference_mode():
        layer(x), layer.gelu(x)
        layer.pack(measured=False)  # as a teacher, on whose results training depends
        layer(x), layer.gelu(x)
        layer.pack()
        layer(x[:39]), layer.gelu(x[:39])
        copy.deepcopy(layer)(x), pickle.loads(pickle.dumps(layer)).gelu(x)
        assert not measured
        monkeypatch.setattr(private_ops, "FUSED_LINEAR", lambda *args: 1 / 0)
        monkeypatch.setattr(module, "fastest", lambda candidates: PLAIN)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        torch.testing.assert_close(layer.gelu(x), F.gelu(F.linear(x, layer.weight, layer.bias)))
    assert measured == ["linear bias 2^6 33 70", "linear gelu bias 2^6 33 70"]


@pytest.mark.parametrize("capability, first", [("AVX2", SPLIT), ("DEFAULT", SPLIT), ("AVX512", FUSED)])
def test_the_kernel_without_a_measurement_depends_on_the_cpu(
    capability: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    kernels = module._kernels.__wrapped__
    assert kernels(True)[0] == first and set(kernels(True)) == {PLAIN, FUSED, SPLIT}
    assert kernels(False) == (FUSED, PLAIN)


@pytest.mark.parametrize("conv_bias, affine", [(True, True), (False, True), (True, False)])
def test_conv_then_norm_is_both_one_after_the_other(conv_bias: bool, affine: bool) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, bias=conv_bias), nn.BatchNorm2d(4, affine=affine)
    for _ in range(3):
        norm(conv(torch.randn(2, 3, 8, 8)))  # statistics other than 0 and 1
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for layers in (norm.train(), norm.eval()):
            torch.testing.assert_close(conv_then_norm(F.conv2d, x, conv, layers), layers(conv(x)))
