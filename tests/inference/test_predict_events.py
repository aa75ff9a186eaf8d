"""Predictions for event recordings: scores of a test, unreadable files, networks of frames, annotated videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from conftest import ROOT, tiny_settings
from event_files import CLASSES, SENSOR, event_settings, write_folder, write_recording
from video_files import write_video

from slowfast.cli.main import main
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_dataset
from slowfast.datasets.dvs.frames import accumulate
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.engine import test as testing
from slowfast.inference import Predictor
from slowfast.inference.output import MIN_FRAMES
from slowfast.utils.distributed import World
from slowfast.visualization.event_plots import event_frames
from tests.inference.tiny_predictions import table

EMPTY = str(ROOT / "tests" / "empty.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "data"
    write_folder(folder)
    return folder


def config(data: Path, output: Path) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(event_settings(data, output))
    return cfg


def predict(output: Path, *words: object, data: Path | str = "") -> int:
    """Run the tool on a tiny Event2Vec with random weights; options and files, then a list of overrides."""
    before = [str(word) for word in words if not isinstance(word, list)]
    after = [str(part) for word in words if isinstance(word, list) for part in word]
    settings = event_settings(Path("no_such_data"), output)
    return main(["predict", "--cfg", EMPTY, *before, *map(str, settings), "DATA.PATH_TO_DATA_DIR", str(data), *after])


def test_recordings_get_the_scores_of_a_test(data: Path, tmp_path: Path) -> None:
    cfg = config(data, tmp_path)
    wanted = testing.test(cfg, World(), eval_dataset(cfg, TEST)).evaluator.predictions
    predictor = Predictor.from_config(cfg)
    found = predictor.predict([data / one.name for one in wanted])
    assert predictor.names == list(CLASSES)
    for prediction, one in zip(found, wanted, strict=True):
        assert [name for name, _ in prediction.best()] == [predictor.names[label] for label, _ in one.best]
        assert [score for _, score in prediction.best()] == pytest.approx([score for _, score in one.best], abs=1e-6)


def test_folders_and_what_cannot_be_read(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media = tmp_path / "media"
    write_recording(media / "b.npz", 40, 0)
    columns = [(0, 1, 2, 1), (3, 4, 5, 0), (9, 4, 5, 1)]
    np.save(media / "a.npy", np.array(columns, [("t", "<i4"), ("x", "<i2"), ("y", "<i2"), ("p", "<i1")]))
    (media / "broken.npz").write_bytes(b"PK no zip")
    (media / "c.raw").write_bytes(b"%")
    (media / "notes.txt").write_text("not looked at")
    write_video(media / "d.mp4")
    write_recording(media / "wide.npz", 40, 0, x=np.full(40, 99))
    assert predict(tmp_path, media, tmp_path / "gone.npz", data=data) == 0
    rows = [(Path(row["path"]).name, row["class_name"]) for row in table(tmp_path)]
    read = dict(row for row in rows if row[1])
    assert read.keys() == {"a.npy", "b.npz"} and set(read.values()) <= set(CLASSES)
    assert sorted(name for name, answer in rows if not answer) == [
        "broken.npz",
        "c.raw",
        "gone.npz",
        "media",  # its videos
        "wide.npz",
    ]
    out = capsys.readouterr().out
    for words in ("broken.npz", "the header is incomplete", "slowfast video-to-dvs", "SENSOR_SIZE", "does not exist"):
        assert words in out
    assert "2 files read, 5 failed" in out and "1 files of other types" in out


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, empty = tmp_path / "a.npz", tmp_path / "empty"
    write_recording(recording, 40, 0)
    empty.mkdir()
    (tmp_path / "a.aedat4").write_bytes(b"")
    lines = {
        (empty,): "contains no event recordings (files ending in .aedat .aedat4 ",
        (tmp_path / "a.aedat4",): "the file is empty",
        (write_video(tmp_path / "v.mp4"),): "reads event recordings; slowfast video-to-dvs computes events",
    }
    for words, line in lines.items():
        assert predict(tmp_path, *words) == 2
        assert line in capsys.readouterr().err
    assert predict(tmp_path, recording, ["DVS.TIME_NORM", "dataset"]) == 2
    assert "Set DVS.LONGEST" in capsys.readouterr().err
    assert predict(tmp_path, recording, ["DVS.TIME_NORM", "dataset", "DVS.LONGEST", 60_000]) == 0
    assert table(tmp_path)[0]["class_name"] in {"0", "1", "2"}


def test_a_network_of_frames_takes_recordings_where_the_dataset_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "media" / "a.npz"
    write_recording(recording, 200, 0)
    write_video(tmp_path / "media" / "v.mp4")
    settings = [*map(str, tiny_settings(tmp_path / "no_such_data", tmp_path / "out"))]
    assert main(["predict", "--cfg", EMPTY, str(recording), *settings]) == 2
    assert "MorphMLP takes clips; for event recordings set TEST.DATASET dvsframes" in capsys.readouterr().err
    assert main(["predict", "--cfg", EMPTY, str(tmp_path / "media"), *settings]) == 0
    assert [Path(row["path"]).name for row in table(tmp_path / "out")] == ["v.mp4"]
    frames = ["TEST.DATASET", "dvsframes", "DVS.SENSOR_SIZE", "[12,16]", "TEST.NUM_ENSEMBLE_VIEWS", "1"]
    assert main(["predict", "--cfg", EMPTY, str(tmp_path / "media"), *settings, *frames]) == 0
    rows = {Path(row["path"]).name: row["class_name"] for row in table(tmp_path / "out")}
    assert rows["a.npz"] and not rows["media"]


def test_annotated_recordings_are_films(tmp_path: Path) -> None:
    write_recording(tmp_path / "short.npz", 300, 0)
    write_recording(tmp_path / "long.npz", 300, 0, t=np.linspace(0, 4e6, 300).astype(np.int64))
    assert predict(tmp_path, "--annotate", tmp_path / "short.npz", tmp_path / "long.npz") == 0
    for name, frames in (("short", MIN_FRAMES), ("long", 80)):
        with av.open(str(tmp_path / "annotated" / f"{name}.mp4")) as video:
            images = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert len(images) == frames and images[0].shape == (240, 320, 3)
        assert images[0][:60, :60].mean() < 160 < images[0][120:].mean()  # text on a dark background; events on white


def test_a_film_shows_what_is_accumulated() -> None:
    rng = np.random.default_rng(0)
    x, y, p = (rng.integers(0, limit, 500) for limit in (SENSOR[1], SENSOR[0], 2))
    events = EventColumns(x, y, np.sort(rng.uniform(5.0, 99.0, 500)), p)
    images = np.stack(list(event_frames(events, SENSOR, 7)))[:, ::20, ::20]
    assert np.array_equal(images, accumulate(events.x, events.y, events.t, events.p, SENSOR, 7))
    one = events.take(np.array([3]))
    assert len(list(event_frames(one, SENSOR, 4))) == 4


def test_features_are_extracted_and_heat_maps_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*map(str, event_settings(data, tmp_path))]
    assert main(["features", "--cfg", EMPTY, "--out", str(tmp_path / "f.npz"), *settings]) == 0
    features = np.load(tmp_path / "f.npz")
    assert features["feature"].shape == (6, 16) and features["path"][0] == "a/008.npz"
    assert main(["grad-cam", "--cfg", EMPTY, str(data / "a" / "000.npz"), *settings]) == 2
    assert "Event2Vec takes events" in capsys.readouterr().err
