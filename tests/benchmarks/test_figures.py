"""Measurements and their targets in tables."""

from __future__ import annotations

import json

import pytest

from benchmarks.measure import TARGETS, Measurement, Target, measurements_table

RATIO = ("test, 10x3 views", "ratio to decoding once + resizing")


@pytest.mark.parametrize(("value", "least", "most"), [(2.0, False, True), (3.0, True, True), (4.0, True, False)])
def test_a_target_is_met_at_its_limit(value: float, least: bool, most: bool) -> None:
    assert Target(3.0, at_least=True).met(value) is least
    assert Target(3.0, at_least=False).met(value) is most


@pytest.mark.parametrize(("value", "verdict"), [(1.2, "met"), (1.4, "NOT MET")])
def test_table_and_json_tell_the_verdict(value: float, verdict: str) -> None:
    measurement = Measurement(*RATIO, value, "x", 5)
    line = next(line for line in measurements_table([measurement]).splitlines() if RATIO[1] in line)
    assert line.split()[-1] == verdict.split()[-1] and "at most 1.3" in line
    assert measurement.as_json()["met"] is (verdict == "met")


def test_a_figure_without_a_target_has_no_verdict() -> None:
    measurement = Measurement("load", "decoding", 12.345678, "ms/video", 3)
    assert json.loads(json.dumps(measurement.as_json())) == {
        "group": "load",
        "name": "decoding",
        "value": 12.345678,
        "unit": "ms/video",
        "runs": 3,
    }
    assert "12.35" in measurements_table([measurement])


def test_each_group_is_named_once() -> None:
    measurements = [
        Measurement("one", "a", 1, "s", 1),
        Measurement("one", "b", 2, "s", 1),
        Measurement("two", "a", 3, "s", 1),
    ]
    assert [line.strip() for line in measurements_table(measurements).splitlines()].count("one") == 1
    assert RATIO in TARGETS
