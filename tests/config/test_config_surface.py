"""Every config key is read somewhere; every YAML file loads, builds and states result, time and command."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.models.build import build_model

ROOT = Path(__file__).parents[2]
# Files that declare or check keys without using them.
NOT_USERS = {
    *(ROOT / "slowfast/config/keys").glob("*.py"),
    *(ROOT / f"slowfast/cli/{name}.py" for name in ("validate", "validate_components")),
}
# torchrun numbers the machines; validation only compares the key with its number.
ONLY_CHECKED = {"SHARD_ID"}
SECTIONS = {name for name, value in get_cfg().items() if isinstance(value, ConfigNode)}
YAMLS = sorted((ROOT / "configs").rglob("*.yaml"))


def sections_in(node: ast.AST) -> set[str]:
    """Return the config sections in an expression: {"DATA"} for `cfg.DATA`."""
    return {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr in SECTIONS}


def aliases(tree: ast.AST) -> dict[str, set[str]]:
    """Return names bound to sections: `solver = cfg.SOLVER`, `for part in (cfg.TRAIN, cfg.TEST)`, `f(cfg.BN)`."""
    found: dict[str, set[str]] = {}
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}

    def bind(target: ast.expr, value: ast.expr) -> None:
        for name in (n.id for n in ast.walk(target) if isinstance(n, ast.Name)):
            found.setdefault(name, set()).update(sections_in(value))

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for one, its in pairs:
                bind(one, its)
        elif isinstance(node, (ast.For, ast.comprehension)):
            bind(node.target, node.iter)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            for parameter, argument in zip(functions[node.func.id].args.args, node.args, strict=False):
                bind(ast.Name(parameter.arg), argument)
    return found


def keys_read(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = aliases(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)):
            continue
        inner = node.value
        if isinstance(inner, ast.Attribute):
            yield f"{inner.attr}.{node.attr}"
            yield node.attr  # self.cfg.NUM_GPUS
        elif isinstance(inner, ast.Name):
            yield node.attr  # cfg.NUM_GPUS
            yield from (f"{section}.{node.attr}" for section in names.get(inner.id, ()))


def test_the_search_finds_reads_and_only_reads(tmp_path: Path) -> None:
    source = """
def f(cfg):
    solver, other = cfg.SOLVER, cfg.DATA
    part = cfg.TRAIN if cfg.TEST.ENABLE else cfg.BN
    g(cfg.MIXUP)
    return solver.STEPS, part.X, cfg.NUM_GPUS, "cfg.SOLVER.LRS"

def g(mix):
    mix.PROB
    mix.ALPHA = 1
"""
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    found = set(keys_read(tmp_path / "a.py"))
    assert {"SOLVER.STEPS", "TEST.ENABLE", "TRAIN.X", "BN.X", "NUM_GPUS", "MIXUP.PROB"} <= found
    assert not {"SOLVER.LRS", "DATA.STEPS", "MIXUP.ALPHA", "TRAIN.ENABLE"} & found


def test_every_key_is_read_somewhere() -> None:
    files = [p for folder in ("slowfast", "tools") for p in (ROOT / folder).rglob("*.py") if p not in NOT_USERS]
    read = {key for path in files for key in keys_read(path)}
    assert {key for key, _ in get_cfg().keys_by_path()} - read == ONLY_CHECKED


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_yaml_loads_and_builds(path: Path, tmp_path: Path) -> None:
    cfg = load_config(path, ["OUTPUT_DIR", tmp_path])
    with torch.device("meta"):  # shapes only
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize("path", [p for p in YAMLS if not p.name.startswith("Base-")], ids=lambda p: p.stem)
def test_every_yaml_header_states_result_time_and_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    assert "top-1" in header
    assert f"tools/run_net.py --cfg {path.relative_to(ROOT)}" in header
    assert re.search(r"\b[Tt]ime\b|not trained here", header) or "no training recipe" in text
    if "License of the weights" in header and "Expected: top-1" in header:
        assert re.search(r"top-1 [\d.]+ %.*\(published", header)


def test_the_published_settings_differ_as_the_recipes_say() -> None:
    def of(name: str) -> ConfigNode:
        return load_config(ROOT / f"configs/K400/K400_MLP_{name}x4.yaml")

    rows = {
        name: (
            of(name).DATA.NUM_FRAMES,
            of(name).MORPH.LAYERS,
            of(name).MORPH.DROP_DEPTH_RATE,
            of(name).SOLVER.WARMUP_EPOCHS,
        )
        for name in ("S16", "S32", "B16", "B32")
    }
    assert rows == {
        "S16": (16, [3, 4, 9, 3], 0.1, 10.0),
        "S32": (32, [3, 4, 9, 3], 0.1, 10.0),
        "B16": (16, [4, 6, 15, 4], 0.3, 10.0),
        "B32": (32, [4, 6, 15, 4], 0.3, 30.0),
    }
