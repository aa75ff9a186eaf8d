"""Parameters and multiply-adds of the settings in configs/ImageNet, against the published figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from slowfast.config.load import load_config
from slowfast.models import build_model

FOLDER = Path(__file__).parents[2] / "configs/ImageNet"
# Setting: parameters (exact where a published checkpoint tells them, else millions), GMACs an image.
PUBLISHED: dict[str, tuple[int | float, float]] = {
    "CONVMLP_S": (9_022_920, 2.4),
    "CONVMLP_M": (17.4, 3.95),
    "CONVMLP_L": (42.7, 9.9),
    "EAT_TI": (5_719_912, 1.0),
    "EAT_S": (22.1, 3.8),
    "EAT_M": (49.0, 8.4),
    "EAT_B": (86.6, 14.8),
    "EAT_TI_384": (5.8, 3.5),
    "EAT_S_384": (22.2, 12.3),
    "EAT_TI_DIST": (5_719_912 + 192 + 193_000, 1.0),  # a query and a head more
    "EAT_S_DIST": (22.4, 3.8),
    "EVMLP": (38_427_560, 1.03),
    "EVMLP_DIST": (38_427_560, 1.03),
    "MORPHMLP_S": (40.5, 7.1),  # of ours: none are published
    "MORPHMLP_B": (58.0, 10.5),
}


def test_every_setting_is_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == PUBLISHED.keys() | {
        "Base-ConvMLP",
        "Base-EAT",
        "Base-ImageNet",
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name: str) -> None:
    cfg = load_config(FOLDER / f"{name}.yaml")
    with torch.device("meta"):
        model = build_model(cfg).eval()
        image = torch.empty(1, 3, cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE)
    parameters, gmacs = PUBLISHED[name]
    found = sum(p.numel() for p in model.parameters())
    assert found == parameters if isinstance(parameters, int) else round(found / 1e6, 1) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.02)
