"""Predictions for files and folders: scores of a test, unreadable files, output files, annotated videos."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_settings
from video_files import picture, write_video

from slowfast.cli.main import main
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_dataset
from slowfast.datasets.decode import open_video
from slowfast.datasets.index.samples import highest_frame
from slowfast.engine import test as testing
from slowfast.errors import DataError, UserError
from slowfast.inference import Predictor
from slowfast.models import build_model
from slowfast.utils.distributed import World
from slowfast.visualization.video_writer import draw_lines, to_drawable
from tests.inference.tiny_predictions import table

EMPTY = str(ROOT / "tests" / "empty.yaml")
CONVMLP = ["MODEL.MODEL_NAME", "ConvMLP", "CONVMLP.LAYERS", "[1]", "CONVMLP.EMBED_DIMS", "[16]", "CONVMLP.CONV_DIM", 8]
CONVMLP += ["CONVMLP.MLP_RATIOS", "[2]", "TEST.NUM_ENSEMBLE_VIEWS", 1]


def write_image(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(number, 40, 48))
    return path


def predict(folder: Path, *words: object) -> tuple[int, Path]:
    """Run the tool on the tiny network with random weights; its status and OUTPUT_DIR."""
    settings = tiny_settings(folder / "no_such_data", folder / "out")
    before = [str(word) for word in words if not isinstance(word, list)]
    after = [str(part) for word in words if isinstance(word, list) for part in word]
    return main(["predict", "--cfg", EMPTY, *before, *map(str, settings), *after]), folder / "out"


def test_files_get_the_scores_of_a_test(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.freeze()
    wanted = testing.test(tiny_cfg, World(), eval_dataset(tiny_cfg, TEST)).evaluator.predictions
    data = Path(tiny_cfg.DATA.PATH_PREFIX)
    predictor = Predictor.from_config(tiny_cfg)
    found = predictor.predict([data / one.name for one in wanted])
    names = predictor.names
    assert len(names) == 8 and names[0] != "0"  # from categories.txt
    for prediction, one in zip(found, wanted, strict=True):
        assert [name for name, _ in prediction.best()] == [names[label] for label, _ in one.best]
        assert [score for _, score in prediction.best()] == pytest.approx([score for _, score in one.best], abs=1e-6)


def test_three_lines_of_python(tiny_cfg: ConfigNode, tmp_path: Path) -> None:
    predictor = Predictor.from_config(tiny_cfg)
    best = predictor(write_video(tmp_path / "clip.mp4")).best(3)
    assert len(best) == 3 and best[0][1] >= best[1][1] >= best[2][1] > 0
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4: not a video"):
        predictor(tmp_path / "text.mp4")
    with pytest.raises(UserError, match="2 samples"):
        predictor(tmp_path)


def test_what_cannot_be_read_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media = tmp_path / "media"
    (media / "inner").mkdir(parents=True)
    write_video(media / "b.mp4")
    write_video(media / "inner" / "a.mkv", size=(33, 45), pix_fmt="yuv444p")
    (media / "broken.mp4").write_bytes((media / "b.mp4").read_bytes()[:300])
    (media / "notes.txt").write_text("not looked at")
    status, output = predict(tmp_path, media, tmp_path / "gone.mp4", media / "notes.txt")
    assert status == 0
    results = json.loads((output / "predictions.json").read_text())
    assert [entry["path"] for entry in results["predictions"]] == [f"{media}/b.mp4", f"{media}/inner/a.mkv"]
    assert len(results["predictions"][0]["best"]) == 5
    reasons = {Path(entry["path"]).name: entry["reason"] for entry in results["failed"]}
    assert reasons.keys() == {"broken.mp4", "gone.mp4", "notes.txt"} and "does not exist" in reasons["gone.mp4"]
    rows = table(output)
    assert [row["prediction"] != "" for row in rows] == [True, False, True, False, False]
    assert float(rows[0]["score"]) == results["predictions"][0]["best"][0]["score"]
    with (output / "failed.csv").open() as file:
        failed = {Path(row["path"]).name: (row["lost"], row["reason"]) for row in csv.DictReader(file)}
    assert failed == {name: ("yes", reason) for name, reason in reasons.items()}
    out = capsys.readouterr().out
    assert "2 files read, 3 failed" in out and "12 clips in" in out and "clips/s" in out
    assert "1 files of other types" in out and all(name in out for name in reasons)


def test_clips_of_several_files_share_batches(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", frames=20, first=50 * number)
    scores = []
    for batch in (1, 4, 64):  # 6 clips per file
        assert predict(tmp_path, tmp_path, ["TEST.BATCH_SIZE", batch])[0] == 0
        scores.append([float(row["score"]) for row in table(tmp_path / "out")])
    assert scores[0] == pytest.approx(scores[1], abs=2e-4) and scores[0] == pytest.approx(scores[2], abs=2e-4)
    assert len(set(scores[0])) == 3


def test_weights_is_an_alias(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "a.mp4")
    assert predict(tmp_path, video, "--weights", tmp_path / "gone.pyth")[0] == 2
    assert "gone.pyth" in capsys.readouterr().err
    both = ["TEST.CHECKPOINT_FILE_PATH", tmp_path / "other.pyth"]
    assert predict(tmp_path, video, "--weights", tmp_path / "gone.pyth", both)[0] == 2
    assert "both name a checkpoint. Give one of them" in capsys.readouterr().err
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(tmp_path, tmp_path / "out"), "RNG_SEED", 5])
    torch.manual_seed(5)
    torch.save({"model_state": build_model(cfg).state_dict()}, tmp_path / "weights.pyth")
    assert predict(tmp_path, video, "--weights", tmp_path / "weights.pyth")[0] == 0
    loaded = table(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["weights"].endswith("weights.pyth")
    assert predict(tmp_path, video)[0] == 0  # random weights of another seed
    assert table(tmp_path / "out") != loaded


def test_an_output_folder_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "a.mp4")
    assert predict(tmp_path, video, "--out", video)[0] == 2
    error = capsys.readouterr().err
    assert "is not a directory. Choose another folder" in error and error.count("\n") == 1


def test_nothing_read_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    lines = {"empty": "contains no videos", "text.mp4": "not a video that FFmpeg", "gone.mp4": "does not exist"}
    for name, words in lines.items():
        status, output = predict(tmp_path, tmp_path / name)
        err = capsys.readouterr().err
        assert status == 2 and err.count("\n") == 1 and words in err and name in err
        assert not (output / "predictions.csv").exists()


def test_a_network_for_the_other_kind_of_media_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, video = write_image(tmp_path / "a.png"), write_video(tmp_path / "b.mp4")
    assert predict(tmp_path, image)[0] == 2
    assert "an image, but MorphMLP takes clips" in capsys.readouterr().err
    for_images = [*CONVMLP, "TEST.DATASET", "imagenet", "TEST.NUM_SPATIAL_CROPS", 1]
    assert predict(tmp_path, video, for_images)[0] == 2
    assert "ConvMLP takes images; for videos set MODEL.FRAMEWISE" in capsys.readouterr().err
    assert predict(tmp_path, video, CONVMLP)[0] == 2  # clips of a dataset to an image network
    assert "MODEL.FRAMEWISE" in capsys.readouterr().err
    assert predict(tmp_path, image, for_images)[0] == 0
    assert predict(tmp_path, video, [*CONVMLP, "MODEL.FRAMEWISE", "logits"])[0] == 0


def test_a_folder_of_frames_is_one_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for clip, frames in (("one", 9), ("two", 5)):
        for number in range(1, frames + 1):
            write_image(tmp_path / "frames" / clip / f"{number:05d}.jpg", number)
    write_video(tmp_path / "frames" / "three.webm", codec="libvpx-vp9", options={"deadline": "realtime"}, frames=8)
    sth = ["TRAIN.DATASET", "sth", "TEST.DATASET", "sth"]
    status, output = predict(tmp_path, tmp_path / "frames", "--annotate", sth)
    assert status == 0
    assert [Path(row["path"]).name for row in table(output)] == ["three.webm", "one", "two"]
    with open_video(output / "annotated" / "two.mp4") as video:
        assert (video.num_frames, video.fps) == (5, 30)
    assert predict(tmp_path, tmp_path / "frames" / "one")[0] == 2
    assert "set TEST.DATASET sth" in capsys.readouterr().err
    wrong = [*sth, "DATA.IMAGE_TEMPLATE", "img_{:06d}.jpg"]
    assert predict(tmp_path, tmp_path / "frames" / "one", wrong)[0] == 2
    assert "named img_{:06d}.jpg" in capsys.readouterr().err


def test_frames_are_counted_by_their_highest_number() -> None:
    names = ["img_00002.jpg", "img_00007.jpg", "cover.jpg", "img_12.jpg"]
    assert highest_frame(names, "img_{:05d}.jpg") == 7
    assert highest_frame(names, "{:05d}.jpg") == 0


def test_the_table_of_a_test_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("path,label,prediction\na,1,1\n")
    video = write_video(tmp_path / "a.mp4")
    status, output = predict(tmp_path, video)
    assert status == 0 and (output / "predictions.csv").read_text().endswith("a,1,1\n")
    assert table(output / "predict")[0]["path"] == str(video)
    assert predict(tmp_path, video, ["OUTPUT_DIR", str(output / "predict")])[0] == 0  # its own is written anew


def test_annotated_videos_have_the_size_rate_and_length_of_the_original(tmp_path: Path) -> None:
    source = write_video(tmp_path / "odd.mkv", frames=12, size=(99, 131), pix_fmt="yuv444p", rate=10)
    status, output = predict(tmp_path, source, "--annotate")
    assert status == 0
    with open_video(output / "annotated" / "odd.mp4") as video, open_video(source) as original:
        assert (video.height, video.width, video.num_frames, video.fps) == (100, 132, 12, 10)
        found, wanted = video.read([5]).frames[0], original.read([5]).frames[0]
    difference = np.abs(found[:99, :131].astype(int) - wanted).mean(axis=2)
    assert difference[60:].mean() < 12  # the original picture
    assert difference[:25, :30].mean() > 40  # under the text


def test_text_fits_the_smallest_frames_and_the_font() -> None:
    assert to_drawable("Café – 猫") == "Cafe ? ?"
    for side in (2, 16, 300):
        image = np.full((side, side, 3), 200, np.uint8)
        drawn = draw_lines(image.copy(), ["a very long name of a class that goes on and on"] * 5)
        assert drawn.shape == image.shape and (drawn != image).any()


def test_names_of_any_bytes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Files named to confuse a terminal or a spreadsheet, and one that is not UTF-8."""
    media = tmp_path / "media"
    media.mkdir()
    clip = write_video(media / "plain.mp4").read_bytes()
    names = [b"=1+1.mp4", b"a\nb.mp4", b"a\x1b[2Jb.mp4", b"caf\xe9.mp4", b"back\\slash.mp4", "\u202egnp.mp4".encode()]
    for name in names:
        (media / os.fsdecode(name)).write_bytes(clip)
    (media / "broken\n\x1b[31m.mp4").write_text("no video")
    status, output = predict(tmp_path, media, "--annotate")
    assert status == 0
    out, err = capfd.readouterr()
    text = (output / "predictions.csv").read_text(encoding="utf-8")
    for shown in (out + err, text):
        assert not any(character in shown for character in "\x1b\r\u202e\udce9")
    assert r"broken\n\x1b[31m.mp4 cannot be read: " in out
    rows = {row["path"].removeprefix(f"{media}/") for row in table(output)}
    assert rows == {
        *("plain.mp4", "=1+1.mp4", r"a\nb.mp4", r"a\x1b[2Jb.mp4", r"caf\xe9.mp4", r"back\\slash.mp4"),
        *(r"\u202egnp.mp4", r"broken\n\x1b[31m.mp4"),
    }
    found = json.loads((output / "predictions.json").read_text())
    read = {os.fsencode(Path(one["path"]).name) for one in found["predictions"]}
    assert read == {b"plain.mp4", *names} and len(list((output / "annotated").iterdir())) == 7


def test_results_are_written_before_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "clip.mp4")

    def fail(*args: object) -> str:
        raise OSError("the screen is gone")

    monkeypatch.setattr("slowfast.inference.output.predictions_table", fail)
    status, output = predict(tmp_path, tmp_path / "clip.mp4")
    assert status == 1 and len(table(output)) == 1 and (output / "predictions.json").exists()
