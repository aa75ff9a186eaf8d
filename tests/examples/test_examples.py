"""Examples of docs/ADDING.md: their unmodified files, on small real videos, through the command line."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.csv_files import read_rows
from tests.video_files import write_video
from tests.warm_start import run_script

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
CLASSES = ("pour", "stir, slowly", "wipe")
SMALL = [
    *("TRAIN.BATCH_SIZE", 4, "TEST.BATCH_SIZE", 4, "DATA.NUM_FRAMES", 4, "DATA.SAMPLING_RATE", 2, "NUM_GPUS", 0),
    *("DATA.TRAIN_JITTER_SCALES", "[32,40]", "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
    *("SOLVER.MAX_EPOCH", 2, "SOLVER.WARMUP_EPOCHS", 1, "MODEL.NUM_CLASSES", len(CLASSES), "LOG_PERIOD", 1),
    *("DATA_LOADER.NUM_WORKERS", 1, "TRAIN.EVAL_PERIOD", 1, "TRAIN.CHECKPOINT_PERIOD", 1),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three activities, four training and two test videos each."""
    root = tmp_path / "data"
    (root / "videos").mkdir(parents=True)
    rows = [["video", "activity", "split"]]
    for clip in range(6):
        for number, name in enumerate(CLASSES):
            video = f"{clip}_{number}.avi"
            write_video(root / "videos" / video, frames=12, codec="mpeg4", size=(40, 48 + 8 * number))
            rows.append([video, name, "train" if clip < 4 else "test"])
    with (root / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def run(root: Path, out: Path, *overrides: object) -> subprocess.CompletedProcess[str]:
    settings = ["DATA.PATH_TO_DATA_DIR", root, "DATA.PATH_PREFIX", root / "videos", "OUTPUT_DIR", out]
    line = [*("--cfg", EXAMPLES / "annotations_small_3d_cnn.yaml"), *settings, *SMALL, *overrides]
    modules = [part for name in ("annotations.py", "small_3d_cnn.py") for part in ("--import", EXAMPLES / name)]
    return run_script(ROOT / "tools" / "run_net.py", [*map(str, modules), *map(str, line)], environment(), timeout=180)


def test_a_dataset_and_a_network_of_the_user_train_and_test(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(data, out)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "test_results.json").read_text())
    assert (results["videos"], results["failed"], results["views"]) == (6, 0, 2)
    rows = read_rows(out / "predictions.csv")
    assert [row["label"] for row in rows] == ["0", "1", "2", "0", "1", "2"]
    assert {row["class"] for row in rows if "class" in row} <= set(CLASSES)
    assert (out / "checkpoints" / "checkpoint_epoch_00002.pyth").exists()


def test_user_errors_of_the_examples(data: Path, tmp_path: Path) -> None:
    wrong = run(data, tmp_path / "out", "MODEL.MODEL_NAME", "Small3DCN", "TRAIN.DATASET", "annotations")
    assert wrong.returncode == 2 and "Did you mean 'Small3DCNN'?" in wrong.stderr
    with (data / "annotations.csv").open("a") as file:
        file.write("7_0.avi,pour\n")
    broken = run(data, tmp_path / "out")
    assert (
        broken.returncode == 2 and "annotations.csv line 20: '7_0.avi,pour'. Expected video,activity" in broken.stderr
    )
    assert "Traceback" not in broken.stderr and not (tmp_path / "out" / "checkpoints").exists()
