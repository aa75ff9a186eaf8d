"""Wheel installed outside the checkout: commands, shipped configs, types, and excluded files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from slowfast import __version__
from tests.conftest import ROOT, tiny_settings
from tests.video_files import write_video

pytestmark = [pytest.mark.slow, pytest.mark.extensive]

SOURCES = ("slowfast", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, which takes all other packages from this one."""

    wheel: Path
    scripts: Path
    folder: Path  # to work in, outside of the checkout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = words
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RANK")}
        return subprocess.run(
            [str(self.scripts / program), *arguments],
            cwd=self.folder,
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    source, wheels, environment = folder / "source", folder / "wheels", folder / "environment"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)  # type: ignore[operator]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", "--no-build-isolation", *alone, "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = wheels.iterdir()
    venv.create(environment, with_pip=False)
    scripts = environment / "bin"
    subprocess.run([*pip, "--python", str(scripts / "python"), "install", *alone, str(wheel)], check=True, timeout=300)
    # A line of a .pth file makes the other packages importable, without the .pth files beside them: those may point to
    # the checkout.
    packages = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    (folder / "work").mkdir()
    return Installed(wheel, scripts, folder / "work")


def test_the_wheel_holds_the_package_and_the_configs(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "slowfast").rglob("*.py")}
    configs = {f"slowfast/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    kernels = {path.relative_to(ROOT).as_posix() for path in (ROOT / "slowfast").rglob("*.cpp")}
    assert modules and configs and kernels
    assert modules | configs | kernels | {"slowfast/py.typed"} <= names
    assert {name.partition("/")[0] for name in names} == {"slowfast", f"slowfast-{__version__}.dist-info"}


def test_the_command_is_installed(installed: Installed) -> None:
    for line in (("slowfast",), ("python", "-m", "slowfast")):
        done = installed.run(*line, "--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"slowfast {__version__}\n", "")
    done = installed.run("python", "-c", "import slowfast; print(slowfast.__file__)")
    assert str(installed.scripts.parent) in done.stdout
    done = installed.run("slowfast", "train", "--help")
    assert done.returncode == 0 and "usage: slowfast train --cfg FILE" in done.stdout
    done = installed.run("slowfast", "model-info", "--cfg", "K400/K400_MLP_S16x4")
    assert done.returncode == 0 and "47.0 M" in done.stdout


def test_an_index_builds_on_a_shipped_config(installed: Installed) -> None:
    for number in range(6):
        image = installed.folder / "images" / "ab"[number % 2] / f"{number}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((40, 48, 3), 40 * number, np.uint8))
    done = installed.run("slowfast", "index", "images", "--out", "index")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((installed.folder / "index" / "run.yaml").read_text())["_BASE_"] == "Finetune/IMAGE_CONVMLP_S"
    program = (
        "from slowfast.config.defaults import get_cfg; c = get_cfg(); c.merge_from_file('index/run.yaml');"
        "print(c.MODEL.MODEL_NAME, c.DATA.PATH_PREFIX)"
    )
    done = installed.run("python", "-c", program)
    assert done.stdout == f"ConvMLP {installed.folder.resolve() / 'images'}\n", done.stderr


def test_a_model_is_trained_tested_and_applied(installed: Installed, kinetics_folder: Path) -> None:
    settings = [*map(str, tiny_settings(kinetics_folder, installed.folder / "out")), "SOLVER.MAX_EPOCH", "1"]
    (installed.folder / "tiny.yaml").write_text("TRAIN: {ENABLE: False}\n")
    common = ["--cfg", "tiny.yaml", "--workers", "0"]
    done = installed.run("slowfast", "train", *common, *settings)
    assert done.returncode == 0, done.stderr
    done = installed.run("slowfast", "test", *common, *settings)
    assert done.returncode == 0, done.stderr
    output = installed.folder / "out"
    assert (output / "test_results.json").exists() and (output / "checkpoints").is_dir()
    video = write_video(installed.folder / "clip.mp4")
    done = installed.run("slowfast", "predict", *common, "--out", "predicted", str(video), *settings)
    assert done.returncode == 0, done.stderr
    assert (installed.folder / "predicted" / "predictions.json").exists()
