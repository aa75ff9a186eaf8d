"""Learning rate schedules against literal implementations of their formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.engine.optim import build_schedule
from slowfast.errors import ConfigError


def config(**solver: object):
    cfg = get_cfg()
    for key, value in solver.items():
        setattr(cfg.SOLVER, key, value)
    return cfg


@given(st.floats(0, 60))
def test_cosine_after_warmup(epoch: float) -> None:
    cfg = config(
        BASE_LR=2e-4,
        COSINE_END_LR=1e-6,
        WARMUP_START_LR=1e-6,
        WARMUP_EPOCHS=10.0,
        MAX_EPOCH=60,
        COSINE_AFTER_WARMUP=True,
    )
    cfg.SOLVER.COSINE_AFTER_WARMUP = True
    if epoch < 10:
        expected = 1e-6 + (2e-4 - 1e-6) * epoch / 10
    else:
        expected = 1e-6 + (2e-4 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (epoch - 10) / 50))
    assert build_schedule(cfg)(epoch) == pytest.approx(expected, rel=1e-9)


def test_warmup_meets_a_cosine_that_started_at_epoch_0() -> None:
    cfg = config(BASE_LR=1.0, COSINE_END_LR=0.0, WARMUP_START_LR=0.0, WARMUP_EPOCHS=5.0, MAX_EPOCH=10)
    schedule = build_schedule(cfg)
    assert schedule(0) == 0
    assert schedule(5 - 1e-9) == pytest.approx(schedule(5), rel=1e-6)
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(10) == pytest.approx(0)


def test_steps_hold_from_their_start() -> None:
    cfg = config(LR_POLICY="steps_with_relative_lrs", BASE_LR=0.1, STEPS=[0, 30, 60], LRS=[1, 0.1, 0.01], MAX_EPOCH=90)
    schedule = build_schedule(cfg)
    assert [schedule(e) for e in (0, 29.99, 30, 59.9, 60, 89)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_rates_scale_with_shards_only_when_asked() -> None:
    cfg = config(BASE_LR=0.1, COSINE_END_LR=0.01, MAX_EPOCH=10)
    cfg.NUM_SHARDS = 4
    assert build_schedule(cfg)(0) == pytest.approx(0.1)
    cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS = True
    assert build_schedule(cfg)(0) == pytest.approx(0.4)
    assert build_schedule(cfg)(10) == pytest.approx(0.04)


def test_unknown_policy_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"SOLVER\.LR_POLICY: unknown value 'cosinus'.*cosine"):
        build_schedule(config(LR_POLICY="cosinus"))


def test_the_cooldown_keeps_the_last_rate() -> None:
    cfg = config(BASE_LR=1.0, COSINE_END_LR=0.1, MAX_EPOCH=30, COOLDOWN_EPOCHS=10.0)
    schedule = build_schedule(cfg)
    assert schedule(10) == pytest.approx(0.55)
    assert [schedule(epoch) for epoch in (20, 25, 30)] == pytest.approx([0.1] * 3)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # epoch: rate, by the authors' formulas
        ("CONVMLP_S", {0: 1e-4, 5: 1e-5 + 49e-5 * (1 + math.cos(math.pi * 5 / 300)) / 2, 300: 1e-5, 305: 1e-5}),
        ("CONVMLP_S_PADDLEVIT", {0: 2e-6, 5: 8e-5, 152.5: 5e-5, 300: 2e-5}),
        ("EVMLP", {0: 1e-3, 5: 0.1, 152.5: (0.1 + 1e-5) / 2, 300: 1e-5}),
        ("EAT_TI", {0: 1e-6, 150: (1e-3 + 1e-5) / 2, 300: 1e-5}),
    ],
)
def test_rates_of_the_published_image_recipes(name: str, rates: dict[float, float], tmp_path: Path) -> None:
    cfg = load_config(Path(__file__).parents[2] / f"configs/ImageNet/{name}.yaml", ["OUTPUT_DIR", tmp_path])
    schedule = build_schedule(cfg)
    assert [schedule(epoch) for epoch in rates] == pytest.approx(list(rates.values()), rel=1e-9)
