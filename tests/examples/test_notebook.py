"""Notebook of examples/: runs from a folder of clips to an exported model, and contains no machine paths."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.video_files import write_video

NOTEBOOK = ROOT / "examples" / "finetune_own_videos.ipynb"
LARGEST = 300_000  # bytes, with its outputs
MACHINE_PATHS = re.compile(r"/(home|root|tmp|work|Users|mnt|opt)/\S+|0x[0-9a-f]{6,}")


def test_the_stored_notebook_is_small_and_complete() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(text) < LARGEST
    assert [cell["execution_count"] for cell in codes] == list(range(1, len(codes) + 1))
    shown = [output for cell in codes for output in cell["outputs"]]
    assert not [output for output in shown if output["output_type"] == "error"]
    assert MACHINE_PATHS.findall(text) == []


@pytest.mark.extensive
@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, size in (("tall", (64, 48)), ("wide", (48, 64))):
        for clip in range(6):
            (tmp_path / "videos" / name).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path / "videos" / name / f"{clip}.mp4", frames=16, size=size)
    settings = {"VIDEOS": tmp_path / "videos", "WORK": tmp_path / "work", "EPOCHS": 2, "WORKERS": 0, "WEIGHTS": ""}
    settings |= {"OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT, "IPYTHONDIR": tmp_path / "ipython"}
    for key, value in settings.items():
        monkeypatch.setenv(key, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())]
    results = json.loads((tmp_path / "work" / "run" / "test_results.json").read_text())
    assert any(f"top-1 {results['top1']:.1f} %" in text for text in texts)
    assert texts[-1] == "(2, 2)\n" and (tmp_path / "work" / "net.pt2").is_file()
