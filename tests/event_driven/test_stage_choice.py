"""Choice between compiled kernels and PyTorch: a function of measured times, which are cached."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from operator import or_
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowfast.errors import ConfigError
from slowfast.event_driven import EventDrivenInference, network, stage_choice
from slowfast.event_driven.kernels import load_kernels
from slowfast.event_driven.network import KERNELS_VARIABLE, StageRows
from slowfast.event_driven.stage_choice import (
    MARGIN,
    Choice,
    MeasuredStage,
    StageTimes,
    cached_times,
    choose,
    measure_stages,
)
from slowfast.models.evmlp import EvMLP, Stage
from slowfast.utils import private_cache
from slowfast.utils.logging import warn_once
from tests.conftest import cached

TIMES = StageTimes((1, 4, 16), (1.0, 2.0, 9.0), (3.0, 2.5, 6.0))
SECONDS = st.floats(1e-6, 1.0)


@st.composite
def tables(draw: st.DrawFn) -> StageTimes:
    rows = sorted(draw(st.sets(st.integers(1, 5000), min_size=1, max_size=8)))
    columns = (draw(st.lists(SECONDS, min_size=len(rows), max_size=len(rows))) for _ in range(2))
    return StageTimes(rows, *columns)


@given(times=tables())
def test_choice_loses_at_most_the_margin(times: StageTimes) -> None:
    choice = choose(times)
    for rows, compiled, pytorch in zip(times.rows, times.compiled, times.pytorch, strict=True):
        chosen = pytorch if choice.uses_pytorch(rows) else compiled
        assert chosen <= (1 + MARGIN) * min(compiled, pytorch) * (1 + 1e-9)
    used = [choice.uses_pytorch(rows) for rows in range(1, times.rows[-1] + 1)]
    assert choice.needs == set(used) or len(times.rows) == 1
    assert [choice.may_use_pytorch(rows) for rows in range(1, len(used) + 1)] == list(accumulate(used, or_))
    assert choice.uses_pytorch(10**6) == choice.uses_pytorch(times.rows[-1])


@given(noise=st.lists(st.floats(1 - MARGIN / 3, 1 + MARGIN / 3), min_size=6, max_size=6))
def test_noise_does_not_change_the_choice(noise: list[float]) -> None:
    equal = StageTimes((1, 10, 100), noise[:3], noise[3:])
    assert choose(equal) == Choice(pytorch=False)
    compiled, pytorch = ([a * b for a, b in zip(pair, noise, strict=False)] for pair in ((1, 2, 9), (3, 2, 6)))
    (switch,) = choose(StageTimes((1, 10, 100), compiled, pytorch)).switches
    assert 10 <= switch <= 20


def test_crossing_is_interpolated() -> None:
    choice = choose(TIMES)
    assert choice == Choice(False, (7,)) and choice.needs == {False, True}
    before, after = math.log(2.5 / 2), math.log(9 / 6)
    assert choice.switches[0] == math.ceil(4 * 4 ** (before / (before + after)))
    assert not choice.uses_pytorch(6) and choice.uses_pytorch(7)
    assert choose(StageTimes((1, 2), (5.0, 1.0), (1.0, 5.0))) == Choice(True, (2,))
    assert choose(StageTimes((1, 2), (5.0, 5.0), (1.0, 1.0))).needs == {True}
    assert choose(StageTimes((1,), (1.0,), (5.0,))).needs == {False}


def stage() -> Stage:
    torch.manual_seed(0)
    return Stage(24, 20, 2, 2, 0.0).eval()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_each_number_of_rows_runs_on_the_chosen_implementation(precision: str) -> None:
    kernels = load_kernels()
    if kernels is None:
        pytest.skip("no C++ compiler here")
    made, x = stage(), torch.randn(9, 24)
    only = [StageRows(made, precision, kernels, Choice(pytorch)) for pytorch in (False, True)]
    assert [(rows.compiled is None, rows.pytorch is None) for rows in only] == [(False, True), (True, False)]
    mixed = StageRows(made, precision, kernels, Choice(False, (3, 6)))
    with torch.inference_mode():
        for count in range(1, 10):
            assert torch.equal(mixed(x[:count]), only[3 <= count < 6](x[:count]))
        tolerance = 0.05 if precision == "int8" else 0.02  # with AVX2, the kernels have a coarser scale of the weights
        torch.testing.assert_close(only[0](x), only[1](x), rtol=tolerance, atol=tolerance)


class Clock:
    """Clock that advances by the work that is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, fixed: float, per_row: float) -> Any:
        def run(x: torch.Tensor) -> None:
            self.now += fixed + per_row * len(x)

        return run


def test_measurement_finds_the_times_and_ends() -> None:
    clock = Clock()
    stages = [
        MeasuredStage(clock.work(1e-4, 2e-5), clock.work(5e-4, 1e-5), 4),
        MeasuredStage(clock.work(1e-3, 0), clock.work(1e-4, 0), 1 << 14),  # limited by memory
    ]
    found = measure_stages(stages, clock)
    assert found is not None
    many, wide = found
    assert many.rows[:3] == (1, 4, 16) and many.compiled[0] == pytest.approx(1.2e-4)
    assert choose(many).switches == (pytest.approx(41, abs=3),)
    assert wide.rows[-1] == 384 and choose(wide) == Choice(pytorch=True)
    assert clock.now < 10
    found = measure_stages([MeasuredStage(clock.work(0.1, 0.1), clock.work(0.1, 0.1), 4)], clock)
    assert found is not None and found[0].rows == (1,) and clock.now < 20


def test_disturbed_measurement_is_not_used(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, random = Clock(), Random(0)

    def disturbed(x: torch.Tensor) -> None:
        clock.now += random.choice((1, 2, 4, 8, 16, 32, 64, 128)) * 1e-5

    stage = MeasuredStage(clock.work(1e-5, 0), disturbed, 1 << 20)
    assert measure_stages([stage], clock) is None
    with caplog.at_level(logging.INFO, "slowfast"):
        assert cached_times({}, 1, lambda: None) is None
    assert "too busy" in caplog.text and not cached(cache)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    warn_once.cache_clear()
    yield tmp_path / "slowfast"


class Measure:
    """Measurement that counts its calls."""

    def __init__(self, times: StageTimes = TIMES) -> None:
        self.calls, self.times = 0, times

    def __call__(self) -> list[StageTimes]:
        self.calls += 1
        return [self.times]


def test_times_are_measured_once(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    measure = Measure()
    with caplog.at_level(logging.INFO, "slowfast"):
        found = [cached_times({"network": 1}, 1, measure) for _ in range(3)]
    assert measure.calls == 1 and found == [[TIMES]] * 3
    assert [record.getMessage() for record in caplog.records if "measuring" in record.getMessage()] == [
        caplog.text and caplog.records[0].getMessage()
    ]
    (file,) = cached(cache)
    assert file.stat().st_mode & 0o077 == 0
    cached_times({"network": 2}, 1, measure)
    torch.set_num_threads(threads := torch.get_num_threads() + 1)
    try:
        cached_times({"network": 1}, 1, measure)
    finally:
        torch.set_num_threads(threads - 1)
    assert measure.calls == 3 and len(cached(cache)) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: text.replace("2.0", "-2.0"),
        lambda text: text.replace("2.0", "NaN"),
        lambda text: text.replace("2.0", '"fast"'),
        lambda text: text.replace("[1, 4, 16]", "[1, 16, 4]"),
        lambda text: text.replace("[1, 4, 16]", "[1, 4]"),
        lambda text: text.replace('"network": 1', '"network": 7'),
        lambda text: json.dumps({**json.loads(text), "stages": 3}),
        lambda text: json.dumps({**json.loads(text), "stages": []}),
    ],
)
def test_damaged_and_foreign_files_are_measured_again(cache: Path, change: Any) -> None:
    measure = Measure()
    cached_times({"network": 1}, 1, measure)
    (file,) = cached(cache)
    good = file.read_text()
    file.write_text(change(good))
    assert cached_times({"network": 1}, 1, measure) == [TIMES] and measure.calls == 2
    assert file.read_text() == good and cached(cache) == [file]


def test_first_of_two_processes_decides(cache: Path) -> None:
    other = StageTimes((1,), (1.0,), (1.0,))

    def slower() -> list[StageTimes]:
        cached_times({}, 1, Measure(other))
        return [TIMES]

    assert cached_times({}, 1, slower) == [other] == cached_times({}, 1, slower)


def test_many_at_once_agree(cache: Path) -> None:
    def one(number: int) -> list[StageTimes]:
        return cached_times({}, 1, Measure(StageTimes((1,), (1.0 + number,), (1.0,))))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(32)))
    assert all(times == found[0] for times in found) and len(cached(cache)) == 1


@pytest.mark.parametrize("what", ["read-only", "file in its place"])
def test_unusable_cache_measures(
    what: str, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(private_cache, "_temporary_folder", lambda: tmp_path)
    if what == "read-only":
        cache.mkdir()
        monkeypatch.setattr(private_cache.os, "access", lambda *_: False)  # root may write anywhere
    else:
        cache.write_text("")
    measure = Measure()
    caplog.set_level(logging.WARNING, "slowfast")
    assert [cached_times({}, 1, measure) for _ in range(2)] == [[TIMES]] * 2
    assert len(caplog.records) == 1 and "Using a temporary folder" in caplog.text


def small() -> EvMLP:
    torch.manual_seed(0)
    sizes = {"embed_dims": (16, 24), "patch_sizes": (4, 4), "layers": (1, 1), "mlp_ratios": (2, 2)}
    return EvMLP(num_classes=5, dropout_rates=(0, 0), **sizes).eval()


def test_engine_measures_once_and_repeats_its_results(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if load_kernels() is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)
    monkeypatch.setattr(stage_choice, "_MAX_SECONDS", 0.2)
    monkeypatch.setattr(stage_choice, "_STEADY_SHARE", 0)  # however busy the machine of the test is
    model, frames = small(), torch.randn(3, 3, 16, 16)
    logits = EventDrivenInference(model).run_dense(frames)
    (file,) = (path for path in cache.iterdir() if path.suffix == ".json")
    written = file.read_text()
    assert len(json.loads(written)["stages"]) == 3
    assert torch.equal(EventDrivenInference(model).run_dense(frames), logits) and file.read_text() == written
    # The table decides: PyTorch for everything needs no compiled weights, and the results differ by rounding only.
    found = json.loads(written)
    found["stages"] = [{"rows": [1], "compiled": [2.0], "pytorch": [1.0]}] * 3
    file.write_text(json.dumps(found))
    engine = EventDrivenInference(model)
    assert all(stage.compiled is None and stage.pytorch is not None for stage in engine.network.stages)
    torch.testing.assert_close(engine.run_dense(frames), logits)


def test_environment_fixes_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    if load_kernels() is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(network, "measure_stages", None)  # is not called
    monkeypatch.setenv(KERNELS_VARIABLE, "compiled")
    assert all(stage.pytorch is None for stage in EventDrivenInference(small()).network.stages)
    monkeypatch.setenv(KERNELS_VARIABLE, "fast")
    with pytest.raises(ConfigError, match=f"{KERNELS_VARIABLE}=fast"):
        EventDrivenInference(small())


def test_engine_draws_no_random_numbers() -> None:
    model, state = small(), torch.get_rng_state()
    EventDrivenInference(model)
    assert torch.equal(torch.get_rng_state(), state)
