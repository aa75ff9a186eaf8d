"""The worked examples of docs/ADDING.md: their files as they are, on small real videos, through the command line."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, environment
from video_files import write_video

from tests.warm_start import run_script

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
CLASSES = ("ApplyEyeMakeup", "Archery", "BabyCrawling")
SMALL = [
    *("TRAIN.BATCH_SIZE", 4, "TEST.BATCH_SIZE", 4, "DATA.NUM_FRAMES", 4, "DATA.SAMPLING_RATE", 2, "NUM_GPUS", 0),
    *("DATA.TRAIN_JITTER_SCALES", "[32,40]", "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
    *("SOLVER.MAX_EPOCH", 2, "SOLVER.WARMUP_EPOCHS", 1, "MODEL.NUM_CLASSES", len(CLASSES), "LOG_PERIOD", 1),
    *("DATA_LOADER.NUM_WORKERS", 1, "TRAIN.EVAL_PERIOD", 1, "TRAIN.CHECKPOINT_PERIOD", 1),
]


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    """Three classes of UCF101's layout, four training and two test videos each."""
    root = tmp_path / "ucf101"
    (root / "lists").mkdir(parents=True)
    lists: dict[str, list[str]] = {"classInd.txt": [], "trainlist01.txt": [], "testlist01.txt": []}
    for number, name in enumerate(CLASSES, start=1):
        (root / "videos" / name).mkdir(parents=True)
        lists["classInd.txt"].append(f"{number} {name}")
        for clip in range(6):
            video = f"{name}/v_{name}_g{clip:02d}_c01.avi"
            write_video(root / "videos" / video, frames=12, codec="mpeg4", size=(40, 48 + 8 * number))
            lists["trainlist01.txt" if clip < 4 else "testlist01.txt"].append(
                f"{video} {number}" if clip < 4 else video
            )
    for file, lines in lists.items():
        (root / "lists" / file).write_text("\n".join(lines) + "\n")
    return root


def run(root: Path, out: Path, *overrides: object) -> subprocess.CompletedProcess[str]:
    settings = ["DATA.PATH_TO_DATA_DIR", root / "lists", "DATA.PATH_PREFIX", root / "videos", "OUTPUT_DIR", out]
    line = [*("--cfg", EXAMPLES / "ucf101_small_3d_cnn.yaml"), *settings, *SMALL, *overrides]
    modules = [part for name in ("ucf101.py", "small_3d_cnn.py") for part in ("--import", EXAMPLES / name)]
    return run_script(ROOT / "tools" / "run_net.py", [*map(str, modules), *map(str, line)], environment(), timeout=180)


def test_a_dataset_and_a_network_of_the_user_train_and_test(ucf101: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(ucf101, out)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "test_results.json").read_text())
    assert (results["videos"], results["failed"], results["views"]) == (6, 0, 2)
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert {row["class"] for row in rows if "class" in row} <= set(CLASSES)
    assert (out / "checkpoints" / "checkpoint_epoch_00002.pyth").exists()


def test_user_errors_of_the_examples(ucf101: Path, tmp_path: Path) -> None:
    wrong = run(ucf101, tmp_path / "out", "MODEL.MODEL_NAME", "Small3DCN", "TRAIN.DATASET", "ucf101")
    assert wrong.returncode == 2 and "Did you mean 'Small3DCNN'?" in wrong.stderr
    lists = ucf101 / "lists" / "trainlist01.txt"
    lists.write_text(lists.read_text() + "Juggling/v_Juggling_g01_c01.avi 4\n")
    broken = run(ucf101, tmp_path / "out")
    assert broken.returncode == 2 and "trainlist01.txt line 13: class 'Juggling'" in broken.stderr
    assert "Traceback" not in broken.stderr and not (tmp_path / "out" / "checkpoints").exists()
