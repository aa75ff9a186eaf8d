"""Event-driven inference within the clips of a test."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.errors import ConfigError
from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.clips import EventDrivenClips, Savings
from slowfast.models.evmlp import EvMLP
from slowfast.models.framewise import FramewiseVideo
from tests.event_driven.settings import EMPTY, small_evmlp
from tests.random_weights import randomized


def network() -> EvMLP:
    return randomized(EvMLP(5, (8, 12, 16), (4, 2, 2), (1, 1, 1), (2, 2, 2), (0, 0, 0)))


@pytest.mark.parametrize("average", ["logits", "features"])
def test_threshold_0_equals_the_framewise_network(average: str) -> None:
    image = network()
    plain, clips = FramewiseVideo(image, average).eval(), EventDrivenClips(EventDrivenInference(image, threshold=0.0))
    for batch in (3, 2):  # each call's clips are new streams
        x = torch.randn(batch, 3, 6, 16, 16)
        x[:, :, 3] = x[:, :, 2]  # a frame in which nothing changes
        with torch.inference_mode():
            torch.testing.assert_close(clips(x), plain(x), rtol=1e-4, atol=1e-5)
    savings = clips.savings
    assert savings.frames == 30 and savings.macs_saved == pytest.approx(100 / 6)
    assert savings.active_shares == pytest.approx([100 * 5 / 6] * 3)


def test_autocast_does_not_affect_the_engine() -> None:
    image = network()
    clips = EventDrivenClips(EventDrivenInference(image, threshold=0.0))
    x = torch.randn(2, 3, 4, 16, 16)
    with torch.inference_mode():
        expected = clips(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(clips(x), expected)


def test_savings_of_processes_are_added() -> None:
    parts = [Savings([4, 1], 100, 2, 150, [6, 2]), Savings([4, 1], 100), Savings([4, 1], 100, 2, 50, [2, 1])]
    total = Savings.total(parts)
    assert (total.frames, total.macs, total.active) == (4, 200, [8, 3])
    assert total.macs_saved == 50 and total.active_shares == [50, 75] and parts[0].frames == 2
    assert Savings.total(parts[1:2]).macs_saved == 0 and Savings.total(parts[1:2]).active_shares == []


def predictions(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_test_loop_reports_accuracy_and_savings(
    kinetics_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def tested(name: str, *change: object) -> dict[str, object]:
        data = ("DATA.PATH_TO_DATA_DIR", kinetics_folder, "DATA.PATH_PREFIX", kinetics_folder, "DATA.NUM_FRAMES", 4)
        clips = ("MODEL.FRAMEWISE", "logits", "TRAIN.ENABLE", False, "TEST.NUM_ENSEMBLE_VIEWS", 2)
        run(load_config(EMPTY, [*small_evmlp(tmp_path / name), *data, *clips, "TEST.BATCH_SIZE", 5, *change]))
        results: dict[str, object] = json.loads((tmp_path / name / "test_results.json").read_text())
        return results

    plain = tested("plain")
    assert "macs_saved" not in plain and "saved" not in capfd.readouterr().out
    exact = tested("exact", "EVENT.ENABLE", True, "EVENT.THRESHOLD", 0)
    assert "multiply-adds saved" in capfd.readouterr().out
    assert (exact["top1"], exact["top5"]) == (plain["top1"], plain["top5"])
    for one, other in zip(predictions(tmp_path / "plain"), predictions(tmp_path / "exact"), strict=True):
        assert one["prediction"] == other["prediction"]
        assert float(one["score"]) == pytest.approx(float(other["score"]), abs=2e-4)
    coarse = tested("coarse", "EVENT.ENABLE", True, "EVENT.THRESHOLD", 9)
    assert coarse["macs_saved"] == 75 and coarse["active_patches"] == [25] * 4  # the first of four frames alone


def test_other_networks_are_config_errors(kinetics_folder: Path, tmp_path: Path) -> None:
    change = ("MODEL.MODEL_NAME", "ConvMLP", "MODEL.FRAMEWISE", "logits", "EVENT.ENABLE", True)
    with pytest.raises(ConfigError, match="MODEL.MODEL_NAME must be evMLP, not ConvMLP"):
        load_config(EMPTY, [*small_evmlp(tmp_path), "DATA.PATH_TO_DATA_DIR", kinetics_folder, *change])
