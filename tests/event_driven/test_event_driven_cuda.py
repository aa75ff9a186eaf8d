"""Event-driven inference on a GPU: CUDA graphs, no synchronization, results equal to the CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.static_shapes import CudaGraphs
from slowfast.models.evmlp import EvMLP
from tests.event_driven.test_engine import RULES, video
from tests.event_driven.test_static_shapes import SIZES
from tests.random_weights import randomized

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def engines(*rule: Any, **options: Any) -> tuple[EventDrivenInference, EventDrivenInference]:
    """Return an engine on the GPU and a plain one on the CPU."""
    on_cpu, on_gpu = randomized(EvMLP(**SIZES)), randomized(EvMLP(**SIZES)).cuda()
    cpu_options = {key: value for key, value in options.items() if key == "precision"}
    plain = EventDrivenInference(on_cpu, *rule, compiled=False, **cpu_options)
    return EventDrivenInference(on_gpu, *rule, **options), plain


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_graph_replays_on_current_buffers() -> None:
    buffer, out = torch.zeros(4, device="cuda"), torch.zeros(4, device="cuda")

    def work() -> None:
        out.copy_(buffer * 2 + 1)

    replay = CudaGraphs(buffer.device).capture(work)
    for value in (3.0, 5.0):
        buffer.fill_(value)
        replay()
        assert out.tolist() == [2 * value + 1] * 4


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("reference, gate", RULES)
def test_captured_and_uncaptured_equal_the_cpu(reference: str, gate: str, wait: bool) -> None:
    engine, plain = engines(0.05, reference, gate, 5, wait=wait)
    engine.capture(2, 1)
    engine.capture(1, 3)
    frames = torch.stack([video(10, seed) for seed in range(3)], 1)  # K S 3 H W
    for k, count in ((2, 1), (1, 3), (3, 2), (2, 1), (1, 3), (1, 3)):
        part, frames = frames[:k, :count], frames[k:]
        found, want = engine.run(part.cuda(), range(count)), plain.run(part, range(count))
        torch.testing.assert_close(found.logits.cpu(), want.logits, rtol=1e-3, atol=1e-3)
        assert torch.equal(found.active.cpu(), want.active) and torch.equal(found.macs.cpu(), want.macs)
        assert found.active.device.type == ("cpu" if wait else "cuda")


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.parametrize("reference, gate", RULES)
def test_detect_and_compute_do_not_wait(reference: str, gate: str, captured: bool, wait: bool) -> None:
    engine, plain = engines(0.05, reference, gate, wait=wait)
    if captured:
        engine.capture(2, 2)
    frames = torch.stack([video(8, seed) for seed in range(2)], 1)
    on_gpu = frames.cuda()
    found = [engine.run(part, "ab") for part in on_gpu[:4].split(2)]
    engine.reset("b")  # a stream that starts
    with waiting_is_an_error():
        found += [engine.run(part, "ab") for part in on_gpu[4:].split(2)]
    want = [plain.run(part, "ab") for part in frames[:4].split(2)]
    plain.reset("b")
    want += [plain.run(part, "ab") for part in frames[4:].split(2)]
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one.logits.cpu(), other.logits, rtol=1e-3, atol=1e-3)


def test_detect_runs_ahead_in_another_thread() -> None:
    engine, plain = engines(0.05)
    engine.capture(1, 1)
    frames = video(12)[:, None, None]
    changes: list[Any] = []

    def detect() -> None:
        changes.extend(engine.detect(frame.cuda(), ["a"]) for frame in frames)

    thread = threading.Thread(target=detect)
    thread.start()
    thread.join()
    for frame, change in zip(frames, changes, strict=True):
        want = plain.run(frame, ["a"]).logits
        torch.testing.assert_close(engine.compute(change).logits.cpu(), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision, limit", [("bfloat16", 0.05), ("int8", 0.1)])
def test_low_precision_weights_are_close(precision: str, limit: float) -> None:
    engine, _ = engines(0.0, precision=precision)
    engine.capture(5, 1)
    frames = video(5)
    with torch.no_grad():
        want = randomized(EvMLP(**SIZES))(frames)
    logits = engine.run(frames[:, None].cuda()).logits[:, 0].cpu()
    assert 0 < (logits - want).abs().max() < limit * want.abs().max()


def test_state_is_saved_restored_and_read_out() -> None:
    engine, plain = engines(0.05)
    engine.capture(1, 1)
    frames = video(6)
    for frame in frames[:3]:
        engine(frame[None].cuda())
        plain(frame[None])
    state = engine.save()
    torch.testing.assert_close(engine.dense(1).cpu(), plain.dense(1), rtol=1e-3, atol=1e-3)
    want = engine(frames[3][None].cuda()).logits
    engine.restore(state, "copy")
    torch.testing.assert_close(engine(frames[3][None].cuda(), "copy").logits, want)
