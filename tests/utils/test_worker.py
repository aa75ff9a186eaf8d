"""Messages between processes: every value arrives unchanged, even if its sender has ended."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.utils.worker import receive_message, send_message

DTYPES = ["uint8", "int64", "float32", "bool", "float16", "bfloat16"]


def _there_and_back(value: object, number: int = 7) -> object:
    one, other = socket.socketpair()
    with other:
        with one:
            send_message(one, number, value)
        found, result = receive_message(other)  # its sender has already ended
    assert found == number
    return result


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    dtype=st.sampled_from(DTYPES),
    large=st.booleans(),
    step=st.booleans(),
)
def test_tensors(shape: list[int], dtype: str, large: bool, step: bool) -> None:
    size = [*shape, 70_000 if large else 2]  # copied, or mapped
    kind = getattr(torch, dtype)
    tensor = (torch.rand(size) * 200).to(kind)[..., :: 2 if step else 1]
    result = _there_and_back({"clips": [tensor], "label": 3})
    assert isinstance(result, dict) and result["label"] == 3
    (found,) = result["clips"]
    assert found.dtype == kind and torch.equal(found, tensor)
    found.zero_()  # writable, and no part of what was sent


def test_other_values_and_order() -> None:
    array = np.arange(12).reshape(3, 4).T
    result = _there_and_back([array, "text", None, (1, 2.5), array[:0]])
    assert isinstance(result, list) and np.array_equal(result[0], array) and result[1:4] == ["text", None, (1, 2.5)]
    one, other = socket.socketpair()
    with one, other:
        for number in range(20):
            send_message(one, number, "x" * number)
        assert [receive_message(other) for _ in range(20)] == [(number, "x" * number) for number in range(20)]


def test_the_end_of_the_sender() -> None:
    one, other = socket.socketpair()
    one.close()
    with other, pytest.raises(EOFError):
        receive_message(other)


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    kept = [_there_and_back(torch.zeros(100, dtype=torch.uint8)) for _ in range(50)]
    for _ in range(20):
        _there_and_back(torch.zeros(2**20, dtype=torch.uint8))
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert len(kept) == 50 and after <= before + 2
