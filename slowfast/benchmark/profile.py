"""Where the time of a forward pass goes, by kinds of work, as PyTorch's profiler tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

PRODUCTS, CONVOLUTIONS, DEPTHWISE, ATTENTION, MEMORY, NORMS, REST = KINDS = (
    "matrix products",
    "convolutions",
    "depthwise convolutions",
    "attention",
    "copies and element-wise sums",
    "normalization and activations",
    "other",
)
# What an operator's name holds -> its kind; the first that fits counts.
_BY_NAME = {
    "convolution": CONVOLUTIONS,
    "attention": ATTENTION,
    "linear": PRODUCTS,
    "addmm": PRODUCTS,
    "bmm": PRODUCTS,
    "::mm": PRODUCTS,
    "norm": NORMS,
    "gelu": NORMS,
    "relu": NORMS,
    "softmax": NORMS,
    "copy_": MEMORY,
    "::add": MEMORY,
    "::mul": MEMORY,
    "mean": MEMORY,
    "index": MEMORY,
    "::cat": MEMORY,
    "pool": MEMORY,
}


def time_by_kind(forward: Callable[[], object]) -> list[tuple[str, float]]:
    """The share of a forward pass's time in each kind of work, largest first; kinds that take none are left out."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        forward()
    seconds: dict[str, float] = defaultdict(float)
    for event in record.key_averages(group_by_input_shape=True):
        seconds[kind_of(event.key, event.input_shapes)] += event.self_cpu_time_total
    whole = sum(seconds.values())
    shares = [(kind, spent / whole) for kind, spent in seconds.items() if spent > 0]
    return sorted(shares, key=lambda pair: -pair[1])


def kind_of(operator: str, shapes: Sequence[Any]) -> str:
    """The kind of an operator with inputs of these shapes; a convolution's second is (out, in / groups, height, ..)."""
    for part, kind in _BY_NAME.items():
        if part in operator:
            depthwise = kind == CONVOLUTIONS and len(shapes) > 1 and len(shapes[1]) > 2 and shapes[1][1] == 1
            return DEPTHWISE if depthwise else kind
    return REST
