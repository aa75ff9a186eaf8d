"""Console script: commands, shared options, and compatibility with former command lines."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest

from slowfast import __version__
from slowfast.cli import dvs, index, predict, prepare, train
from slowfast.cli.main import COMMANDS, main
from slowfast.config.node import ConfigNode
from slowfast.config.parse import find_config
from slowfast.datasets.index.folder import KINDS
from slowfast.errors import ConfigError, UserError
from slowfast.inference.features import VIEWS
from slowfast.prepare.convert_dvs import CutSettings
from slowfast.prepare.encode import PrepareSettings
from slowfast.prepare.filter_events import FilterSettings
from slowfast.prepare.frames import FrameSettings
from slowfast.prepare.video_to_dvs import EventSettings

S16 = "K400/K400_MLP_S16x4"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"slowfast {__version__}\n"
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert any(line.split(None, 1) == [name, command.summary] for line in lines), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_function_and_takes_modules(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name]
    assert callable(getattr(import_module(f"slowfast.cli.{command.module}"), command.function))
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "--import MODULE" in capsys.readouterr().out


def run_line(command: train.RunCommand, *words: str) -> ConfigNode:
    seen: list[ConfigNode] = []
    assert train.main(["--cfg", S16, *words, "NUM_GPUS", "0"], seen.append, command) == 0
    return seen[0]


def test_train_and_test_enable_what_they_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = run_line(train.TRAIN, "--out", "here", "--workers", "0")
    assert (cfg.TRAIN.ENABLE, cfg.OUTPUT_DIR, cfg.DATA_LOADER.NUM_WORKERS) == (True, "here", 0)
    assert run_line(train.TEST, "--engine", "ray").ENGINE == "ray"
    cfg = run_line(train.TEST)
    assert (cfg.TRAIN.ENABLE, cfg.TEST.ENABLE) == (False, True)
    cfg = run_line(train.TRAIN, "--out", "here", "OUTPUT_DIR", "there")  # the last override wins
    assert cfg.OUTPUT_DIR == "there"


def test_a_path_to_write_may_still_follow_the_path_to_read() -> None:
    for words in (["a", "b", "--fps", "5"], ["a", "--out", "b", "--fps", "5"], ["--fps", "5", "a", "b"]):
        chosen = prepare.parse_extract_frames(words)
        assert (chosen.source, chosen.out, chosen.fps) == (Path("a"), Path("b"), 5)
    for words, part in (
        (["a"], "required: --out"),
        (["a", "b", "--out", "c"], "unexpected argument b"),
    ):
        with pytest.raises(UserError, match=part):
            prepare.parse_extract_frames(words)


def test_defaults_are_those_of_the_settings() -> None:
    """Options list the defaults without importing the packages that define them."""
    line = ["a", "--out", "b"]
    chosen = vars(prepare.parse_prepare(line))
    assert {name: chosen[name] for name in asdict(PrepareSettings())} == asdict(PrepareSettings())
    chosen = vars(prepare.parse_extract_frames(line))
    assert {name: chosen[name] for name in asdict(FrameSettings())} == asdict(FrameSettings())
    chosen = vars(dvs.parse_simulate(line))
    assert {name: chosen[name] for name in asdict(EventSettings())} == asdict(EventSettings())
    chosen = vars(dvs.parse_convert(line))
    settings = {**vars(CutSettings()), **vars(FilterSettings())}
    del settings["filters"]
    assert {name: chosen[name] for name in settings} == settings


def test_choices_are_those_of_the_packages() -> None:
    assert (predict.VIEWS, index.KINDS) == (VIEWS, KINDS)


@pytest.mark.parametrize("name", [S16, f"{S16}.yaml", f"configs/{S16}.yaml"])
def test_shipped_configs_are_found_from_any_folder(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_config(name)
    assert found.is_file() and found.name == "K400_MLP_S16x4.yaml"


def test_a_file_comes_before_a_shipped_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "K400").mkdir()
    (tmp_path / S16).touch()
    assert find_config(S16) == Path(S16)
    assert find_config("nowhere.yaml") == Path("nowhere.yaml")  # the reader says that it does not exist


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("K400/K400_MLP_S16x5", "Did you mean K400/K400_MLP_S16x4"),
        ("K400_MLP_S16x4", "Did you mean K400/K400_MLP_S16x4"),
        ("something_else", "slowfast model-info --list"),
    ],
)
def test_an_unknown_config_is_an_error_with_the_nearest_name(name: str, answer: str) -> None:
    with pytest.raises(ConfigError, match=answer):
        find_config(name)


def test_the_list_of_shipped_configs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model-info", "--list"]) == 0
    names = capsys.readouterr().out.split()
    assert S16 in names and "Finetune/IMAGE_CONVMLP_S" in names and not any("Base-" in name for name in names)
    assert all(find_config(name).is_file() for name in names)


def test_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    printed = capsys.readouterr().out
    for words in ("Python", "torch ", "usable cores", "instruction sets", "optional extras", "onnx", "shipped configs"):
        assert f"  {words}" in printed or words in printed.splitlines()
