"""Declarations of keys: complete, consistent, and with the implemented choices."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from fvcore.common.registry import Registry

from slowfast.cli.setup import load_config
from slowfast.config import keys as declarations
from slowfast.config.defaults import check_registered_names, check_values, choices, get_cfg
from slowfast.config.key import ORIGINS, Key, Section
from slowfast.config.keys import KEYS, add_section
from slowfast.config.rules import Choices, FilePath, Name, Range, RegistryNames, Rule, Separator, Template
from slowfast.datasets.transforms import ViewTransform
from slowfast.errors import ConfigError

PACKAGE = Path(declarations.__file__).parents[2]
CLOSED = sorted(name for name, key in KEYS.items() if isinstance(key.rule, Choices))
OPEN = sorted(name for name, key in KEYS.items() if isinstance(key.rule, RegistryNames))


@pytest.fixture
def own_section(restored_keys: None) -> Section:
    """Return a section that was added to the config."""
    section = Section("MYNET", "My network")
    section.WIDTH = Key(8, "Width.", unit="channels", rule=Range(1, 64))
    add_section(section)
    return section


def test_defaults_obey_their_rules() -> None:
    for name, key in KEYS.items():
        key.check(name, key.default)


@pytest.mark.parametrize("name", KEYS)
def test_a_key_says_what_it_means_and_what_it_may_be(name: str) -> None:
    key = KEYS[name]
    assert key.doc[0].isupper() or re.match(r"\w+: ", key.doc), "starts with a capital, or with the value it is about"
    assert key.doc.endswith(".") and "  " not in key.doc and "\n" not in key.doc
    assert not key.origin or key.origin in ORIGINS
    free = isinstance(key.default, bool) or key.type == list[str]
    assert key.rule is not None or free, "numbers and texts have a rule"


def test_units_are_spelled_in_one_way() -> None:
    assert {key.unit for key in KEYS.values()} <= {
        *("", "GPUs", "machines", "processes", "threads", "steps", "passes", "epochs", "batches", "checkpoints"),
        *("videos", "samples", "clips", "views", "crops", "copies", "frames", "frames/s", "events", "slices", "boxes"),
        *("pixels", "pixels, tokens", "tokens", "cells", "channels", "heads", "layers", "blocks", "classes"),
        *("seconds", "microseconds", "degrees", "gray levels", "normalized pixel values", "in [0, 1]"),
        *("fraction", "probability", "ratio", "factor", "GiB"),
    }


# Module and table that implement the choices of a key.
IMPLEMENTED = {
    "TRAIN.CHECKPOINT_TYPE": ("slowfast.models.weights", "READERS"),
    "TEST.CHECKPOINT_WEIGHTS": ("slowfast.models.weights", "CHOICES"),
    "TEST.CHECKPOINT_TYPE": ("slowfast.models.weights", "READERS"),
    "DISTILL.TEACHER_CHECKPOINT_TYPE": ("slowfast.models.weights", "READERS"),
    "ENGINE": ("slowfast.utils.ray_cluster", "ENGINES"),
    "TRAIN.AMP_DTYPE": ("slowfast.engine.forward", "AMP_DTYPES"),
    "AUG.INTERPOLATION": ("slowfast.datasets.resample", "INTERPOLATIONS"),
    "DATA.ENSEMBLE_METHOD": ("slowfast.engine.evaluate", "JOIN"),
    "DATA.DECODING_BACKEND": ("slowfast.datasets.decode", "BACKENDS"),
    "DATA.IN_VAL_INTERPOLATION": ("slowfast.datasets.resample", "FILTERS"),
    "DVS.AUG_POLICY": ("slowfast.datasets.event_cameras", "AUGMENTATIONS"),
    "DVS.CLASS_ORDER": ("slowfast.datasets.dvs.index", "CLASS_ORDERS"),
    "DVS.FRAMES": ("slowfast.datasets.dvs.frames", "FRAME_KINDS"),
    "DVS.TIME_NORM": ("slowfast.datasets.dvs.sample", "TIME_NORMS"),
    "MODEL.FRAMEWISE": ("slowfast.models.framewise", "AVERAGES"),
    "SOLVER.LR_POLICY": ("slowfast.engine.optim", "POLICIES"),
    "DISTILL.TYPE": ("slowfast.engine.distillation", "LOSSES"),
    "EAT.PIXEL_ORDER": ("slowfast.models.eat_pixel_order", "PIXEL_ORDERS"),
    "EAT.SFC_MODE": ("slowfast.models.eat_pixel_order", "SFC_MODES"),
    "EAT.BLOCK_TYPE": ("slowfast.models.eat_blocks", "BLOCK_TYPES"),
    "EAT.LOCAL": ("slowfast.models.eat_blocks", "LOCAL_BRANCHES"),
    "EVMLP.INIT": ("slowfast.models.evmlp", "INITS"),
    "EVENT2VEC.TPE": ("slowfast.models.event2vec", "TIME_ENCODINGS"),
    "EVENT.GATE": ("slowfast.event_driven.detector", "GATES"),
    "EVENT.RESIZE": ("slowfast.event_driven.video_frames", "RESIZES"),
}
# Values handled outside of the table, and entries of a table for internal use.
BESIDE_TABLE: dict[str, set[str]] = {"AUG.INTERPOLATION": {"random"}, "MODEL.FRAMEWISE": {""}}
INTERNAL: dict[str, set[str]] = {"TEST.CHECKPOINT_WEIGHTS": {"raw first"}}
# File that compares the value with all of its choices, except for one (the remaining case).
COMPARED = {
    "AUG.RE_MODE": "datasets/photometric.py",
    "DATA.SAMPLING": "datasets/sampling.py",
    "SOLVER.FUSED": "engine/optim.py",
    "WANDB.MODE": "engine/trackers/backends.py",
    "EVENT.REFERENCE": "event_driven/detector.py",
    "EVENT.PRECISION": "event_driven/linear_kernels.py",
    "TEST.CHECKPOINT": "engine/state.py",
    "TEST.ENSEMBLE_ON": "engine/evaluate.py",
    "TEST.FRAME_ORDER": "datasets/sampling.py",
    "TEST.SINGLE_CROP": "datasets/resample.py",
    "BN.NORM_TYPE": "models/convmlp.py",
}
# Numbers, tested below or with the network.
NUMBERS = {"DATA.SPLIT", "TEST.NUM_SPATIAL_CROPS", "EVENT2VEC.POLARITIES"}


def test_the_origin_of_all_choices_is_known() -> None:
    assert CLOSED == sorted({*IMPLEMENTED, *COMPARED, *NUMBERS})


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_choices_are_those_implemented(name: str) -> None:
    module, table = IMPLEMENTED[name]
    implemented = set(getattr(import_module(module), table)) | BESIDE_TABLE.get(name, set())
    assert set(choices(name)) == implemented - INTERNAL.get(name, set())


@pytest.mark.parametrize("name", COMPARED)
def test_choices_are_those_compared(name: str) -> None:
    tree = ast.parse((PACKAGE / COMPARED[name]).read_text(encoding="utf-8"))
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert len(set(choices(name)) - literals) <= 1


@pytest.mark.parametrize("crops", range(5))
def test_the_number_of_crops_is_that_of_the_view_transform(crops: int) -> None:
    if crops in choices("TEST.NUM_SPATIAL_CROPS"):
        ViewTransform(224, 256, crops)
    else:
        with pytest.raises(ConfigError, match="NUM_SPATIAL_CROPS"):
            ViewTransform(224, 256, crops)


@pytest.mark.parametrize("name", OPEN)
def test_registered_names_are_found_when_a_value_is_checked(name: str) -> None:
    default = KEYS[name].default
    assert {default} <= set(choices(name)) if isinstance(default, str) else default == []
    with pytest.raises(ConfigError, match=f"{name}: unknown value 'x'. Choices: "):
        KEYS[name].check(name, "x")


def test_names_come_from_a_registry_or_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("TEST")
    registry.register(Range)
    monkeypatch.setattr(declarations, "REGISTRY", registry, raising=False)
    monkeypatch.setattr(declarations, "TABLE", {"b": 1, "a": 2}, raising=False)
    assert RegistryNames(declarations.__name__, "REGISTRY").values == ("Range",)
    assert RegistryNames(declarations.__name__, "TABLE").values == ("a", "b")


@pytest.mark.parametrize("name", OPEN)
def test_the_built_in_names_are_those_that_the_package_registers(name: str) -> None:
    rule = KEYS[name].rule
    assert isinstance(rule, RegistryNames)
    registry = getattr(import_module(rule.module), rule.attribute)
    assert rule.defined_in in sys.modules
    pairs = registry.items() if isinstance(registry, dict) else registry
    own = {key for key, registered in pairs if registered.__module__.startswith(("slowfast.", "torch."))}
    assert own == set(rule.built_in)
    rule.check_early(name, "my own")  # a user's module may have registered it


def test_values_are_checked_before_registered_names() -> None:
    import_module("slowfast.datasets.build")
    cfg = get_cfg()
    cfg.merge_from_list(["TRAIN.DATASET", "no_such_dataset", "EVENT.THRESHOLD", -1])
    with pytest.raises(ConfigError, match="EVENT.THRESHOLD"):
        check_values(cfg)
    cfg.merge_from_list(["EVENT.THRESHOLD", 1])
    check_values(cfg)
    with pytest.raises(ConfigError, match="TRAIN.DATASET: unknown value 'no_such_dataset'"):
        check_registered_names(cfg)


LIGHT = """
import sys
from slowfast.config.defaults import check_values, get_cfg
cfg = get_cfg()
cfg.merge_from_list(["TEST.ENSEMBLE_ON", "logit"])
try:
    check_values(cfg)
except Exception as error:
    print(error)
heavy = {"torch", "cv2", "numpy", "av", "slowfast.models", "slowfast.datasets", "slowfast.engine"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_wrong_value_is_found_without_importing_anything_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "TEST.ENSEMBLE_ON: unknown value 'logit'. Did you mean 'logits'? Choices: logits, probabilities",
        "[]",
    ]


def test_a_section_of_a_network_outside_of_the_package(own_section: Section) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MYNET.WIDTH", "16"])
    assert cfg.MYNET.WIDTH == 16
    check_values(cfg)
    cfg.merge_from_list(["MYNET.WIDTH", "65"])
    with pytest.raises(ConfigError, match=r"MYNET.WIDTH \(65\) must be from 1 to 64"):
        check_values(cfg)
    with pytest.raises(ValueError, match="MYNET"):
        add_section(own_section)


def test_an_imported_module_adds_keys_that_overrides_may_set(tmp_path: Path, restored_keys: None) -> None:
    module = tmp_path / "section_of_a_test.py"
    module.write_text(
        "from slowfast.config.key import Key, Section\n"
        "from slowfast.config.keys import add_section\n"
        "WIDENET = Section('WIDENET', 'A network')\n"
        "WIDENET.WIDTH = Key(8, 'Width.')\n"
        "add_section(WIDENET)\n",
        encoding="utf-8",
    )
    overrides = ["WIDENET.WIDTH", "16", "OUTPUT_DIR", tmp_path / "out"]
    cfg = load_config("Demo/KINETICS_MORPHMLP", overrides, modules=[str(module)])
    assert cfg.WIDENET.WIDTH == 16


def test_a_key_is_declared_once() -> None:
    section = Section("MYNET", "My network")
    section.WIDTH = Key(8, "Width.")
    with pytest.raises(ValueError, match="MYNET.WIDTH"):
        section.WIDTH = Key(9, "Width.")
    with pytest.raises(ValueError, match="MYNET.depth"):
        section.depth = Key(9, "Depth.")


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (Range(1, 3), [1, 3, [], [1, 2]], [0, 4, [1, 4], [1] * 101]),
        (Range(0, 1, above=True), [0.1, 1], [0]),
        (Range(0, 1, below=True), [0, 0.9], [1]),
        (Range(1, 9, max_sum=10), [9, [5, 5]], [[5, 6]]),
        (Choices("a", ""), ["a", ""], ["b"]),
        (Choices(1, 3), [1, 3], [2]),
        (FilePath(), ["", "a/b", "rtsp://host/" + "x" * 300], ["x" * 300, "a/" * 3000]),
        (FilePath(required=True), ["."], [""]),
        (Name(), ["", "a b", "é" * 128], ["a/b", "a\n", "a" * 129]),
        (Name(required=True), ["a"], [""]),
        (Separator(), [",", "\t"], ["", "\n", "a\rb"]),
        (
            Template((1, 2), "(0[0-9])?d?", "{:05d}"),
            ["{:05d}.jpg", "{}"],
            ["a", "{", "{}{.x}", "{!r}", "{:99d}", "{:x}"],
        ),
    ],
)
def test_rules(rule: Rule, allowed: list[object], refused: list[object]) -> None:
    for value in allowed:
        rule.check("A.KEY", value)
    for value in refused:
        with pytest.raises(ConfigError, match="A.KEY"):
            rule.check("A.KEY", value)
