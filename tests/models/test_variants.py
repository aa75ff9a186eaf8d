"""Named variants in Python against the shipped configs: same layers, shapes and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.models import Network, build_model
from slowfast.models.convmlp import convmlp_l, convmlp_m, convmlp_s
from slowfast.models.eat import eat_b, eat_m, eat_s, eat_ti
from slowfast.models.event2vec import event2vec_asldvs, event2vec_dvsgesture, event2vec_dvslip
from slowfast.models.event2vec_v2 import event2vec_v2_asldvs, event2vec_v2_dvsgesture
from slowfast.models.event2vec_v3 import event2vec_v3_asldvs, event2vec_v3_dvsgesture, event2vec_v3_dvslip
from slowfast.models.evmlp import evmlp
from slowfast.models.layers import Dropout, DropPath
from slowfast.models.morphmlp import morphmlp_b, morphmlp_image_b, morphmlp_image_s, morphmlp_s

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VARIANTS: dict[str, Callable[[], Network]] = {
    "K400/K400_MLP_S16x4": morphmlp_s,
    "K400/K400_MLP_S32x4": lambda: morphmlp_s(num_frames=32),
    "K400/K400_MLP_B16x4": morphmlp_b,
    "K400/K400_MLP_B32x4": lambda: morphmlp_b(num_frames=32),
    "SSV1/SSV1_MLP_S16": lambda: morphmlp_s(num_classes=174, drop_depth_rate=0.3),
    "ImageNet/MORPHMLP_S": morphmlp_image_s,
    "ImageNet/MORPHMLP_B": morphmlp_image_b,
    "ImageNet/CONVMLP_S": convmlp_s,
    "ImageNet/CONVMLP_M": convmlp_m,
    "ImageNet/CONVMLP_L": convmlp_l,
    "ImageNet/EAT_TI": eat_ti,
    "ImageNet/EAT_S": eat_s,
    "ImageNet/EAT_M": eat_m,
    "ImageNet/EAT_B": eat_b,
    "ImageNet/EAT_S_384": lambda: eat_s(image_size=384),
    "ImageNet/EAT_S_DIST": lambda: eat_s(distilled=True),
    "ImageNet/EVMLP": evmlp,
    "DVS/ASLDVS_EVENT2VEC": event2vec_asldvs,
    "DVS/DVSGESTURE_EVENT2VEC": event2vec_dvsgesture,
    "DVS/DVSLIP_EVENT2VEC": event2vec_dvslip,
    "DVS/ASLDVS_EVENT2VEC_V2": event2vec_v2_asldvs,
    "DVS/DVSGESTURE_EVENT2VEC_V2": event2vec_v2_dvsgesture,
    "DVS/ASLDVS_EVENT2VEC_V3": event2vec_v3_asldvs,
    "DVS/DVSGESTURE_EVENT2VEC_V3": event2vec_v3_dvsgesture,
    "DVS/DVSLIP_EVENT2VEC_V3": event2vec_v3_dvslip,
}


def of_config(name: str) -> Network:
    cfg = get_cfg()
    cfg.merge_from_file(CONFIGS / f"{name}.yaml")
    return build_model(cfg)


def settings(model: nn.Module) -> dict[str, object]:
    """Numbers and names among the attributes of all layers, such as dropout rates and chunk lengths."""
    plain = (bool, int, float, str, tuple)
    return {
        f"{layer}.{key}": value
        for layer, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain) and not key.startswith("_")
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_what_its_config_builds(name: str) -> None:
    with torch.device("meta"):
        found, wanted = VARIANTS[name](), of_config(name)
    assert type(found) is type(wanted)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (found, wanted)]
    assert shapes[0] == shapes[1]
    assert settings(found) == settings(wanted)
    assert any(isinstance(m, DropPath | Dropout) for m in found.modules()) == (not name.endswith("EVENT2VEC"))


def test_settings_override_those_of_a_variant() -> None:
    with torch.device("meta"):
        assert len(morphmlp_b(layers=(1, 1, 1, 1)).get_submodule("blocks3")) == 1
        assert convmlp_l(num_classes=3).head.out_features == 3
        assert eat_ti(heads=2).get_submodule("blocks.0.attn").heads == 1
