"""Event-driven inference with static shapes, as on GPUs: against the reference, and without synchronization.

Where there is no GPU, capture is shown with recorded_graphs.py, and that the host waits for nothing on PyTorch's meta
device, whose tensors have no values to wait for.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.cuda_graphs import Graphs, HostCopy
from slowfast.event_driven.static_shapes import (
    StaticChangeDetector,
    StaticChanges,
    StaticPatchFeatures,
    padded_rows,
    possible_rows,
)
from slowfast.models.evmlp import EvMLP
from tests.event_driven.recorded_graphs import RecordedGraphs
from tests.event_driven.slow_reference import SlowStream
from tests.event_driven.test_engine import RULES, SIDE, close, video
from tests.random_weights import randomized

pytestmark = pytest.mark.slow

NAMES = "abc"
SIZES: dict[str, Any] = {
    "embed_dims": (8, 12, 70),
    "patch_sizes": (3, 2, 4),
    "layers": (2, 1, 2),
    "mlp_ratios": (2, 3, 2),
}
SIZES |= {"num_classes": 7, "dropout_rates": (0, 0, 0)}


@pytest.fixture(scope="module")
def model() -> EvMLP:
    return randomized(EvMLP(**SIZES))


def static_engine(model: EvMLP, *rule: Any, **options: Any) -> EventDrivenInference:
    return EventDrivenInference(model, *rule, **{"compiled": False, "static": True, **options})


@torch.inference_mode()
def capture(engine: EventDrivenInference, frames: int, streams: int, graphs: Graphs) -> None:
    """Capture as EventDrivenInference.capture does on a GPU."""
    assert isinstance(engine.detector, StaticChangeDetector) and isinstance(engine.features, StaticPatchFeatures)
    engine.detector.capture(frames, streams, graphs)
    engine.features.capture(frames, streams, graphs)


def camera(seed: int) -> torch.Tensor:
    """Return frames (K, 3, side, side) that start partly at -1, some without a change."""
    frames = video(30, seed)
    frames[:4, :, :, :10] = -1
    frames[[2, 5, 9]] = frames[[1, 4, 8]]
    return frames


def copied(stream: SlowStream) -> SlowStream:
    return copy.deepcopy(stream, {id(stream.model): stream.model})


def slow_answers(slow: list[SlowStream], frames: torch.Tensor) -> tuple[torch.Tensor, list[list[list[int]]]]:
    """Return the reference logits (K, S, classes) and counts (K, S, stages) of frames (K, S, 3, H, W)."""
    answers = [[stream(frame) for stream, frame in zip(slow, row, strict=True)] for row in frames]
    return torch.stack([torch.stack([logits for logits, _ in row]) for row in answers]), [
        [active for _, active in row] for row in answers
    ]


ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 4), st.permutations(NAMES), st.integers(1, 3)),
    st.tuples(st.sampled_from(["save", "restore", "reset"]), st.sampled_from(NAMES), st.none(), st.none()),
)


@pytest.mark.parametrize("captured", [True, False])
@settings(max_examples=30)
@given(
    rule=st.sampled_from(RULES),
    threshold=st.sampled_from([0.0, 0.013, 0.05, 0.4]),
    every=st.sampled_from([0, 0, 3]),
    wait=st.booleans(),
    actions=st.lists(ACTIONS, min_size=2, max_size=7),
    seed=st.integers(0, 999),
)
def test_any_order_of_steps_equals_the_reference(
    model: EvMLP,
    captured: bool,
    rule: tuple[str, str],
    threshold: float,
    every: int,
    wait: bool,
    actions: list[tuple[str, Any, Any, Any]],
    seed: int,
) -> None:
    engine = static_engine(model, threshold, *rule, every, wait=wait)
    if captured:
        for shape in ((1, 1), (2, 2), (3, 1), (4, 3)):
            capture(engine, *shape, RecordedGraphs())
    cameras = {name: iter(camera(seed + ord(name))) for name in NAMES}
    slow: dict[str, SlowStream] = {}
    saved: Any = None
    for action, what, order, count in actions:
        if action == "run":
            streams = order[:count]
            frames = torch.stack([torch.stack([next(cameras[name]) for name in streams]) for _ in range(what)])
            for name in streams:
                slow.setdefault(name, SlowStream(model, threshold, *rule, every))
            results = engine.run(frames, streams)
            logits, active = slow_answers([slow[name] for name in streams], frames)
            close(results.logits, logits)
            assert results.active.tolist() == active
        elif action == "save" and what in slow:
            saved = engine.save(what), copied(slow[what])
        elif action == "restore" and saved is not None:
            engine.restore(saved[0], what)
            slow[what] = copied(saved[1])
        elif action == "reset":
            engine.reset(what)
            slow.pop(what, None)


def test_steps_of_a_captured_shape_are_replayed(model: EvMLP) -> None:
    engine, plain, graphs = static_engine(model), EventDrivenInference(model, compiled=False), RecordedGraphs()
    capture(engine, 2, 1, graphs)
    frames = video(12)
    for part in frames.split(2):
        before = graphs.replayed
        results, want = engine.run(part[:, None]), plain.run(part[:, None])
        close(results.logits, want.logits)
        assert torch.equal(results.active, want.active) and torch.equal(results.macs, want.macs)
        assert graphs.replayed == before + 1 + (3 if want.active.any() else 0)  # the gate, and each stage
    before = graphs.replayed
    close(engine.run(video(3, 1)[:, None]).logits, plain.run(video(3, 1)[:, None]).logits)
    assert graphs.replayed == before, "another shape"


def test_results_survive_later_replays(model: EvMLP) -> None:
    engine = static_engine(model, 0.0)
    capture(engine, 1, 1, RecordedGraphs())
    frames = video(3)[:, None]
    changes = [engine.detect(frame[None], ["a"]) for frame in frames]  # all ahead
    results = [engine.compute(change) for change in changes]
    with torch.no_grad():
        close(torch.cat([result.logits[0] for result in results]), model(frames[:, 0]))


def test_more_streams_than_captured_disable_graphs(model: EvMLP, caplog: pytest.LogCaptureFixture) -> None:
    engine, plain, graphs = static_engine(model), EventDrivenInference(model, compiled=False), RecordedGraphs()
    capture(engine, 1, 1, graphs)
    videos = [video(4, seed) for seed in range(6)]
    with caplog.at_level(logging.INFO, "slowfast"):
        for i in range(4):
            for name, frames in enumerate(videos):
                close(engine(frames[i : i + 1], name).logits, plain(frames[i : i + 1], name).logits)
    assert caplog.text.count("running without CUDA graphs") == 1


def test_capture_reserves_slots(model: EvMLP) -> None:
    engine, graphs = static_engine(model), RecordedGraphs()
    capture(engine, 1, 9, graphs)
    engine.run(torch.stack([video(1, seed) for seed in range(9)], 1), range(9))
    assert graphs.replayed == 4
    engine.capture(1, 9)  # on a CPU: nothing


@given(most=st.integers(1, 20000), share=st.floats(0, 1))
def test_padded_row_counts_are_few_and_slightly_larger(most: int, share: float) -> None:
    count = max(1, round(share * most))
    rows = padded_rows(count, most)
    assert count <= rows <= min(most, max(1.25 * count, count + 63))
    assert rows in possible_rows(most) and len(possible_rows(most)) <= 4 * most.bit_length()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision_equals_dynamic_shapes(model: EvMLP, precision: str) -> None:
    frames = video(6)[:, None]
    want = EventDrivenInference(model, precision=precision, compiled=False).run(frames).logits
    torch.testing.assert_close(static_engine(model, precision=precision).run(frames).logits, want, rtol=0.05, atol=0.05)


def test_compiled_stages_take_these_shapes(model: EvMLP) -> None:
    frames = video(6)[:, None]
    want = EventDrivenInference(model, compiled=False).run(frames).logits
    close(static_engine(model, compiled=True).run(frames).logits, want)


class Transfers(TorchDispatchMode):
    """Counts calls with tensors of two devices and calls that create tensors from host data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        if len(devices) > 1 or "lift" in func.name():
            self.found.append(func.name())
        return out


def without_values(*rule: Any, **options: Any) -> EventDrivenInference:
    """Engine on the meta device, on which reading a tensor's values raises."""
    return static_engine(EvMLP(**SIZES).to("meta").eval(), *rule, **{"wait": False, **options})


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("reference, gate", RULES)
def test_detect_and_compute_need_no_values(reference: str, gate: str, precision: str) -> None:
    engine = without_values(0.05, reference, gate, 3, precision=precision)
    frames = torch.empty(3, 2, 3, SIDE, SIDE, device="meta")
    engine.run(frames[:, :1], ["between"])
    engine.run(frames, ["a", "b"])
    with Transfers() as transfers:
        changes = engine.detect(frames, ["b", "between"])  # no neighbors
    uploads = 2  # slots and flags of dense frames: each takes a call that creates the tensor and one that copies it
    assert len(transfers.found) == 2 * uploads and sum("lift" in name for name in transfers.found) == uploads
    with Transfers() as transfers:
        results = engine.compute(changes)
    assert not transfers.found
    assert results.logits.shape == (3, 2, 7) and results.active.shape == (3, 2, 3)
    assert results.logits.device == results.macs.device == frames.device


def test_compute_needs_counts_only() -> None:
    engine = without_values()
    frames = torch.empty(2, 1, 3, SIDE, SIDE, device="meta")
    changes = engine.detect(frames, ["a"])
    assert isinstance(changes, StaticChanges)
    for counts in ([[[64, 16, 1]], [[3, 2, 1]]], [[[0, 0, 0]], [[0, 0, 0]]]):
        arrived = replace(changes, starting=[], active=HostCopy(torch.tensor(counts)))
        with Transfers() as transfers:
            results = engine.compute(arrived)
        assert not transfers.found
        assert results.active.tolist() == counts and results.logits.device.type == "meta"


def test_dynamic_shapes_need_values() -> None:
    """Prove that the tests above can fail."""
    engine = without_values(static=False)
    with pytest.raises((RuntimeError, NotImplementedError), match="(?i)meta"):
        engine.run(torch.empty(2, 1, 3, SIDE, SIDE, device="meta"), ["a"])
