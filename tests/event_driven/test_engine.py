"""Event-driven engine against the reference implementation, for frames, chunks and batched streams."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.errors import ConfigError
from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.kernels import load_kernels
from slowfast.models.evmlp import EvMLP
from slowfast.models.morphmlp import MorphMLPImage
from slowfast.utils.machine import has_fast_matmul
from tests.event_driven.slow_reference import SlowStream
from tests.random_weights import randomized

pytestmark = pytest.mark.slow

SIDE = 24
RULES = [(reference, gate) for reference in ("previous", "hold") for gate in ("any", "mean")]


@pytest.fixture(scope="module")
def model() -> EvMLP:
    torch.manual_seed(0)
    sizes = {"embed_dims": (8, 12, 70), "patch_sizes": (3, 2, 4), "layers": (2, 1, 2), "mlp_ratios": (2, 3, 2)}
    return randomized(EvMLP(num_classes=7, dropout_rates=(0, 0, 0.5), **sizes)).eval()


def video(frames: int, seed: int = 0, share: float = 0.2) -> torch.Tensor:
    """Return frames (K, 3, side, side) in which some squares change and others get a little noise."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randn(3, SIDE, SIDE, generator=generator)
    out = []
    for _ in range(frames):
        frame = frame.clone()
        for _ in range(3):
            if torch.rand((), generator=generator) < share * 3:
                r, c = torch.randint(0, SIDE - 4, (2,), generator=generator).tolist()
                frame[:, r : r + 4, c : c + 4] += torch.randn(3, 4, 4, generator=generator)
        if torch.rand((), generator=generator) < 0.5:
            frame = frame + 0.02 * torch.randn(3, SIDE, SIDE, generator=generator)
        out.append(frame)
    return torch.stack(out)


def close(found: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("reference, gate", RULES)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 999),
    threshold=st.sampled_from([0.0, 0.013, 0.05, 0.4]),
    every=st.sampled_from([0, 0, 3]),
    chunks=st.lists(st.integers(1, 5), min_size=2, max_size=4),
)
def test_frames_and_chunks_equal_the_reference(
    model: EvMLP,
    reference: str,
    gate: str,
    compiled: bool,
    seed: int,
    threshold: float,
    every: int,
    chunks: list[int],
) -> None:
    frames = video(sum(chunks), seed)
    slow = SlowStream(model, threshold, reference, gate, every)
    want = [slow(frame) for frame in frames]
    rule = {"threshold": threshold, "reference": reference, "gate": gate, "keyframe_every": every}
    one_by_one = EventDrivenInference(model, **rule, compiled=compiled)
    chunked = EventDrivenInference(model, **rule, compiled=compiled)
    results = [chunked.run(chunk[:, None]) for chunk in frames.split(chunks)]
    close(torch.cat([result.logits[:, 0] for result in results]), torch.stack([logits for logits, _ in want]))
    assert torch.cat([result.active[:, 0] for result in results]).tolist() == [active for _, active in want]
    for frame, (logits, active) in zip(frames, want, strict=True):
        result = one_by_one(frame[None])
        close(result.logits[0], logits)
        assert result.active_patches == active


@pytest.mark.parametrize("compiled", [True, False])
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=6),
    starts=st.lists(st.integers(0, 4), min_size=6, max_size=6),
    rule=st.sampled_from(RULES),
    channels_last=st.booleans(),
)
def test_batched_streams_equal_single_streams(
    model: EvMLP,
    compiled: bool,
    lengths: list[int],
    starts: list[int],
    rule: tuple[str, str],
    channels_last: bool,
) -> None:
    videos = {name: video(length, seed=name) for name, length in enumerate(lengths)}
    engine = EventDrivenInference(model, 0.05, *rule, compiled=compiled)
    found: dict[int, list[torch.Tensor]] = {name: [] for name in videos}
    for time in range(12):
        frames = {name: v[time - starts[name]][None] for name, v in videos.items() if 0 <= time - starts[name] < len(v)}
        if channels_last:
            frames = {name: frame.contiguous(memory_format=torch.channels_last) for name, frame in frames.items()}
        results, wrong = engine.step(frames)
        assert not wrong and list(results) == list(frames)
        for name, result in results.items():
            found[name].append(result.logits[0])
        for name, v in videos.items():
            if time - starts[name] == len(v) - 1:
                engine.reset(name)  # its slot goes to the next stream that starts
    assert not engine.streams
    for name, v in videos.items():
        alone = SlowStream(model, 0.05, *rule)
        for frame, logits in zip(v, found[name], strict=True):
            close(logits, alone(frame)[0])


def test_several_streams_in_chunks(model: EvMLP) -> None:
    videos = torch.stack([video(9, seed) for seed in range(3)], 1)  # K S 3 H W
    engine = EventDrivenInference(model)
    for part in videos.split([4, 1, 4]):
        results = engine.run(part, ["a", "b", "c"])
    for s in range(3):
        alone = EventDrivenInference(model)
        logits = alone.run(videos[:, s : s + 1]).logits[-4:, 0]
        close(results.logits[:, s], logits)


@pytest.mark.parametrize("reference, gate", RULES)
def test_threshold_0_equals_dense_inference(model: EvMLP, reference: str, gate: str) -> None:
    frames = video(6)
    frames[3] = frames[2]  # nothing changes
    frames[4, 0, 5, 5] = torch.nan
    engine = EventDrivenInference(model, 0.0, reference, gate)
    results = engine.run(frames[:, None])
    with torch.no_grad():
        close(results.logits[:, 0], model(frames))
    assert results.active[3].sum() == results.macs[3].sum() == 0
    assert results.logits[4].isnan().all() and results.active[4, 0, -1] == 1
    assert not results.logits[5].isnan().any(), "the patch recovers when its pixels are numbers again"


def test_slow_change_drifts_with_previous_and_is_bounded_with_hold(model: EvMLP) -> None:
    """Use 1000 frames, each 0.004 brighter than the previous one, with threshold 0.05."""
    base = video(1)[0]
    frames = torch.stack([base + 0.004 * i for i in range(1000)])
    with torch.no_grad():
        dense = torch.cat([model(part) for part in frames.split(100)])
    errors = {}
    for reference in ("previous", "hold"):
        engine = EventDrivenInference(model, 0.05, reference, "any")
        logits = torch.cat([engine.run(part[:, None]).logits[:, 0] for part in frames.split(64)])
        errors[reference] = (logits - dense).abs().amax(1)
    change_in_hold = 0.06  # the largest distance of a patch from its reference
    with torch.no_grad():
        bound = max(
            float((model(base[None] + x + change_in_hold) - model(base[None] + x)).abs().max()) for x in (0, 1, 2, 3)
        )
    assert errors["hold"].max() < 3 * bound
    assert errors["previous"][-100:].mean() > 10 * errors["hold"][-100:].mean()
    assert errors["previous"][-100:].mean() > 3 * errors["previous"][:20].mean()


def test_keyframes_end_drift(model: EvMLP) -> None:
    frames = torch.stack([video(1)[0] + 0.004 * i for i in range(41)])
    engine = EventDrivenInference(model, 0.05, "previous", "any", keyframe_every=10)
    results = engine.run(frames[:, None])
    with torch.no_grad():
        close(results.logits[::10, 0][1:], model(frames[::10])[1:])
    assert results.active[5].sum() == 0


def test_stream_with_changed_size_does_not_stop_the_others(model: EvMLP) -> None:
    good, bad = video(3), video(3, 1)
    engine, alone = EventDrivenInference(model), EventDrivenInference(model)
    engine.step({"good": good[:1], "bad": bad[:1]})
    results, wrong = engine.step({"bad": bad[1:2, :, :20], "good": good[1:2]})
    assert list(results) == ["good"] and "3 x 24 x 24" in wrong["bad"] and "3 x 20 x 24" in wrong["bad"]
    results, wrong = engine.step({"good": good[2:], "bad": bad[2:]})
    assert not wrong
    logits = alone.run(bad[[0, 2]][:, None]).logits[-1, 0]
    close(results["bad"].logits[0], logits)


def test_state_can_be_saved_restored_and_reset(model: EvMLP) -> None:
    frames = video(8)
    engine = EventDrivenInference(model, keyframe_every=5)
    engine.run(frames[:3, None])
    state = engine.save()
    want = engine.run(frames[3:, None]).logits
    engine.restore(state)
    assert torch.equal(engine.run(frames[3:, None]).logits, want)
    other = EventDrivenInference(model, keyframe_every=5)
    other.run(frames[:1, None], ["first"])
    other.restore(state, "copy")
    close(other.run(frames[3:, None], ["copy"]).logits, want)
    engine.reset()
    assert engine(frames[:1]).active_patches[0] == 64 and engine.streams == ["default"]
    with pytest.raises(KeyError, match="nobody"):
        engine.save("nobody")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 7, 16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dense_inference_equals_the_network(
    model: EvMLP, batch: int, compiled: bool, memory_format: torch.memory_format
) -> None:
    frames = torch.cat([video(1, seed) for seed in range(batch)])
    engine = EventDrivenInference(model, compiled=compiled)
    with torch.no_grad():
        want = model(frames)
    close(engine.run_dense(frames.contiguous(memory_format=memory_format)), want)
    close(engine.run_dense(frames.double()), want)
    assert engine.run_dense(frames).is_contiguous() and engine.run(frames[:, None]).logits.is_contiguous()
    engine.reset()
    larger = torch.nn.functional.pad(frames, (3, 2, 1, 0))  # frames that are crops of it
    close(engine.run_dense(larger[:, :, 1:, 3:-2]), want)
    close(engine.run_dense(frames.flip(3).contiguous().flip(3)), want)
    assert not engine.streams


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_dense_inference_equals_a_first_frame(model: EvMLP, precision: str) -> None:
    """Streams continue as if there had been no dense inference."""
    frames = video(5)
    engine, alone = (EventDrivenInference(model, precision=precision) for _ in range(2))
    close(engine.run_dense(frames[:1]), alone(frames[:1]).logits)
    engine(frames[:1])
    engine.run_dense(frames[3:])
    close(engine(frames[1:2]).logits, alone(frames[1:2]).logits)


def test_dense_features_equal_the_network(model: EvMLP) -> None:
    frames = video(4)
    engine = EventDrivenInference(model, 0.0)
    engine.run(frames[:, None])
    x = frames[-1].permute(1, 2, 0)  # H W C
    with torch.no_grad():
        for i, stage in enumerate(model.blks):
            p = model.patch_sizes[i]
            n = len(x) // p
            patches = x.reshape(n, p, n, p, -1).transpose(1, 2).reshape(n, n, -1)
            x = stage.embed(patches)
            for block in stage.blocks:
                x = block(x)
            close(engine.dense(i), x)


@pytest.mark.parametrize("precision, limit", [("bfloat16", 0.05), ("int8", 0.1)])
@pytest.mark.parametrize("compiled", [True, False])
def test_low_precision_weights_are_close(model: EvMLP, precision: str, limit: float, compiled: bool) -> None:
    frames = video(5)
    engine = EventDrivenInference(model, 0.0, precision=precision, compiled=compiled)
    logits = engine.run(frames[:, None]).logits[:, 0]
    with torch.no_grad():
        want = model(frames)
    assert logits.dtype == torch.float32
    error = (logits - want).abs().max() / want.abs().max()
    kernels = compiled and load_kernels() is not None
    rounded = kernels or precision == "int8" or has_fast_matmul(torch.bfloat16, torch.device("cpu"))
    assert 0 < error < limit if rounded else error < 1e-4  # float32 is used instead


def test_macs_count_the_active_patches(model: EvMLP) -> None:
    engine = EventDrivenInference(model)
    frames = video(1)
    macs = engine(frames).macs
    weights = {name: p.numel() for name, p in model.named_parameters() if p.ndim == 2}
    counts = {"blks.0": 64, "blks.1": 16, "blks.2": 1, "linear": 1}
    assert macs == sum(
        n * counts[".".join(name.split(".")[:2]).replace("linear.weight", "linear")] for name, n in weights.items()
    )
    assert engine(frames).macs == 0


def test_invalid_arguments_are_errors(model: EvMLP) -> None:
    frames = video(1)
    with pytest.raises(ConfigError, match="MorphMLPImage"):
        EventDrivenInference(MorphMLPImage.__new__(MorphMLPImage))
    for settings_, word in (
        ({"threshold": -1}, "THRESHOLD"),
        ({"threshold": float("nan")}, "THRESHOLD"),
        ({"reference": "next"}, "hold, previous"),
        ({"gate": "all"}, "any, mean"),
        ({"precision": "int4"}, "int8"),
        ({"keyframe_every": -2}, "KEYFRAME_EVERY"),
    ):
        with pytest.raises(ConfigError, match=word):
            EventDrivenInference(model, **settings_)
    engine = EventDrivenInference(model)
    with pytest.raises(ConfigError, match="uint8"):
        engine((frames * 255).byte())
    with pytest.raises(ConfigError, match="3 x 30 x 30"):
        engine(torch.zeros(1, 3, 30, 30))
    with pytest.raises(ConfigError, match="expected frames"):
        engine.run_dense(frames[0])
    with pytest.raises(ConfigError, match="3 x 12 x 24"):
        engine.run_dense(frames[:, :, :12])
    with pytest.raises(ValueError, match="distinct"):
        engine.run(frames[:, None].expand(-1, 2, -1, -1, -1), ["a", "a"])
    assert not engine.streams


@pytest.mark.parametrize("static", [True, False])
def test_unsuitable_frames_change_nothing(model: EvMLP, static: bool) -> None:
    frames = video(4)
    engine, want = (EventDrivenInference(model, static=static) for _ in range(2))
    close(engine(frames[:1]).logits, want(frames[:1]).logits)
    wrong = {
        "batch of 0": lambda: engine(frames[:0]),
        "batch of 2": lambda: engine(frames[:2]),
        "no batch": lambda: engine(frames[0]),
        "small": lambda: engine.detect(frames[:1, None, :, :12, :12], ["default"]),
        "bytes": lambda: engine.detect(frames[:1, None].byte(), ["default"]),
        "no time": lambda: engine.run(frames[:1], ["default"]),
        "no frames": lambda: engine.run(frames[:0, None], ["default"]),
        "no streams": lambda: engine.run(frames[None, :0].transpose(0, 1), []),
        "two streams": lambda: engine.detect(frames[:1, None], ["default", "other"]),
        "twice": lambda: engine.detect(frames[:2, None].transpose(0, 1), ["default", "default"]),
    }
    for name, call in wrong.items():
        with pytest.raises((ConfigError, ValueError)):
            call()
            raise AssertionError(name)
    assert engine.streams == ["default"]
    for frame in frames[1:]:
        close(engine(frame[None]).logits, want(frame[None]).logits)


def test_unsuitable_frame_does_not_stop_other_streams(model: EvMLP) -> None:
    frames = video(3)
    engine = EventDrivenInference(model)
    given = {"good": frames[:1], "no batch": frames[0], "two": frames[:2], "small": frames[:1, :, :8, :8]}
    results, wrong = engine.step(given)
    assert set(results) == {"good"} and set(wrong) == {"no batch", "two", "small"} and engine.streams == ["good"]
    close(results["good"].logits, EventDrivenInference(model)(frames[:1]).logits)


def test_state_of_another_network_is_an_error(model: EvMLP) -> None:
    frames = video(2)
    sizes = {"embed_dims": (8, 12, 70), "patch_sizes": (3, 2, 4), "layers": (2, 1, 2), "mlp_ratios": (2, 3, 2)}
    one_class = EventDrivenInference(EvMLP(num_classes=1, dropout_rates=(0, 0, 0), **sizes).eval())
    one_class(frames[:1])
    engine = EventDrivenInference(model)
    want = engine(frames[:1]).logits
    with pytest.raises(ValueError, match="another network"):
        engine.restore(one_class.save())
    with pytest.raises(ValueError, match="another network"):
        engine.restore(one_class.save(), "new")
    assert engine.streams == ["default"]
    close(engine(frames[:1]).logits, want)
