"""Conversion of raw recordings on the command line: files, messages, resuming, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from slowfast.cli.main import main
from slowfast.datasets.dvs.index import read_event_index
from slowfast.datasets.dvs.recording import Recording
from slowfast.prepare import event_spool
from slowfast.prepare.convert_dvs import CutSettings, convert_recordings
from tests.conftest import ROOT, environment
from tests.raw_recordings import Event, aedat, aedat4, dat, evt2, evt3, rows, some_events
from tests.worker_processes import kill_once

TOOL = ROOT / "tools" / "convert_events.py"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_this_process")]


def written(file: Path) -> list[Event]:
    return rows(Recording(file).take(slice(None)))


def convert(source: Path, target: Path, *options: str) -> int:
    return main(["convert-dvs", str(source), str(target), "--workers", "1", *options])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def test_folder_is_converted_once(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "npz"
    (raw / "a").mkdir()
    (raw / "a" / "x.dat").write_bytes(dat(some_events()))
    (raw / "y.raw").write_bytes(evt2(some_events(seed=1)))
    (raw / "broken.raw").write_bytes(b"% nothing\n")
    assert convert(raw, target) == 0
    said = capsys.readouterr().out
    assert "failed: broken.raw" in said and "DVS.SENSOR_SIZE [240,304]: in 1 of 2 recordings" in said
    assert written(target / "a" / "x.npz") == some_events()
    before = (target / "y.npz").stat().st_mtime_ns
    assert convert(raw, target) == 0
    assert "2 converted before" in capsys.readouterr().out and (target / "y.npz").stat().st_mtime_ns == before
    assert not list(target.rglob("*.part"))
    (target / "y.npz").unlink()
    assert convert(raw, target) == 0 and written(target / "y.npz") == some_events(seed=1), "a lost file comes back"


def test_streams_duplicate_names_and_a_single_event(raw: Path, tmp_path: Path) -> None:
    one, other = some_events(), some_events(seed=1)
    (raw / "two.aedat4").write_bytes(aedat4([one, other, []]))
    (raw / "a.aedat").write_bytes(aedat(one))
    (raw / "A.raw").write_bytes(evt2(other))
    (raw / "single.raw").write_bytes(evt2(one[:1]))
    assert convert(raw, tmp_path / "npz") == 0
    names = sorted(file.name for file in (tmp_path / "npz").glob("*.npz"))
    assert names == ["A.raw.npz", "a.aedat.npz", "single.npz", "two_stream0.npz", "two_stream1.npz"]
    assert written(tmp_path / "npz" / "two_stream1.npz") == other == written(tmp_path / "npz" / "A.raw.npz")
    assert written(tmp_path / "npz" / "single.npz") == one[:1]


def test_damaged_recordings_are_converted(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "torn.aedat4").write_bytes(aedat4([some_events(60)])[:-100])
    (raw / "empty.raw").write_bytes(evt2([]))
    (raw / "header.aedat4").write_bytes(aedat4([some_events()])[:50])
    assert convert(raw, tmp_path / "npz") == 0
    said = capsys.readouterr().out
    assert "damaged, converted up to the damage: torn.aedat4: damaged or truncated at byte" in said
    assert (
        "failed: empty.raw: the recording contains no events" in said
        and "failed: header.aedat4: the header is truncated" in said
    )
    assert written(tmp_path / "npz" / "torn.npz") == some_events(60)[:40]


def test_events_outside_of_the_sensor(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "off.aedat4").write_bytes(aedat4([[(x + 200, y, t, p) for x, y, t, p in some_events()]]))
    (raw / "negative.aedat4").write_bytes(aedat4([[*some_events(), (-1, 0, 100_000, 0)]]))
    (raw / "stray.aedat4").write_bytes(aedat4([[*some_events(), (300, 0, 100_000, 0)]]))
    assert convert(raw, tmp_path / "npz") == 0
    said = capsys.readouterr().out
    assert "of 50 events are outside of the sensor of 200 x 300 pixels (x 2" in said
    assert "failed: negative.aedat4: some events have invalid coordinates (x -1 to" in said
    assert len(written(tmp_path / "npz" / "stray.npz")) == 51, "loading tells of stray events and leaves them out"


def test_windows(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "x.dat").write_bytes(dat(some_events(50)))
    (raw / "few.dat").write_bytes(dat(some_events(19)))
    assert convert(raw, tmp_path / "count", "--window-events", "20") == 0
    files = sorted((tmp_path / "count").glob("*.npz"))
    assert [(file.name, Recording(file).n) for file in files] == [("x_00000.npz", 20), ("x_00001.npz", 20)]
    assert "failed: few.dat: 19 events are too few for a window of 20" in capsys.readouterr().out
    convert_recordings(raw, tmp_path / "time", CutSettings(window_time=25_000), workers=1)
    parts = [Recording(file).take(slice(None))["t"] for file in sorted((tmp_path / "time").glob("x_*.npz"))]
    assert sum(map(len, parts)) == 50 and all(np.ptp(t) < 25_000 for t in parts)
    assert convert(raw, tmp_path / "x", "--window-time", "5", "--window-events", "5") == 2
    assert convert(raw, tmp_path / "x", "--window-time", "0") == 2


def test_other_settings_need_another_target(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "x.dat").write_bytes(dat(some_events(50)))
    assert convert(raw, tmp_path / "npz", "--window-events", "20") == 0
    assert convert(raw, tmp_path / "npz") == 2
    assert "converted with --window-time 0.0 --window-events 20. Choose another target" in capsys.readouterr().err
    assert convert(raw, tmp_path / "npz", "--window-events", "20") == 0


def test_dvs_gesture_is_cut_by_labels(raw: Path, tmp_path: Path) -> None:
    events = some_events(200)
    for user in ("user01_led", "user02_led"):
        (raw / f"{user}.aedat").write_bytes(aedat(events))
        (raw / f"{user}_labels.csv").write_text(
            "class,startTime_usec,endTime_usec\n11,1000,40000\n1,50000,90000\n2,999000,999001\n"
        )
    (raw / "user03.aedat").write_bytes(aedat(events))
    (raw / "user03_labels.csv").write_text("class,startTime_usec,endTime_usec\n")
    (raw / "user04.aedat").write_bytes(aedat(events))
    (raw / "user04_labels.csv").write_text("no list")
    (raw / "trials_to_train.txt").write_text("user01_led.aedat\nuser03.aedat\n")
    (raw / "trials_to_test.txt").write_text("user02_led.aedat\n")
    result = convert_recordings(raw, tmp_path / "npz", CutSettings(), workers=1)
    assert result.damaged["user01_led.aedat"] == "skipped 1 labeled parts without events: train/1/user01_led_2.npz"
    assert result.failed == {
        "user03.aedat": "none of the 200 events is inside a part of the label file",
        "user04.aedat": "not listed in trials_to_train.txt or trials_to_test.txt of the same folder",
    }
    train = read_event_index(tmp_path / "npz", "train", 11)
    assert [record.name for record in train] == ["train/0/user01_led_1.npz", "train/10/user01_led_0.npz"]
    assert [e[2] for e in written(train[1].path)] == [e[2] for e in events if 1000 <= e[2] < 40000]
    assert {r.name for r in read_event_index(tmp_path / "npz", "test", 11)} == {
        "test/0/user02_led_1.npz",
        "test/10/user02_led_0.npz",
    }


def test_concurrent_and_killed_runs(raw: Path, tmp_path: Path) -> None:
    for number in range(12):
        (raw / f"{number}.raw").write_bytes(evt3(some_events(20_000, seed=number, longest=8_000_000)))
    line = [sys.executable, str(TOOL), str(raw), str(tmp_path / "npz"), "--workers", "1"]
    kill_once(line, lambda: list((tmp_path / "npz").glob("*.npz")))
    (tmp_path / "npz" / ".5.raw.json").write_text('{"events": 2')  # a truncated record
    runs = [subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [run.communicate(timeout=240) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    for number in range(12):
        assert written(tmp_path / "npz" / f"{number}.npz") == some_events(20_000, seed=number, longest=8_000_000)
    assert not list((tmp_path / "npz").rglob("*.part"))


def test_unsuitable_folders(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "a").mkdir()
    (raw / "a" / "x.dat").write_bytes(dat(some_events()))
    (tmp_path / "npz").mkdir()
    (tmp_path / "npz" / "a").write_text("a file")
    for source, target, message in (
        (raw, tmp_path / "npz", f"{tmp_path / 'npz' / 'a'} cannot be written"),
        (raw, tmp_path / "npz" / "a", "is not a directory"),
        (raw, raw / "npz", "contain one another"),
        (tmp_path / "none", tmp_path / "new", f"{tmp_path / 'none'} does not exist"),
        (tmp_path / "npz", tmp_path / "new", "contains no recordings (files ending in .aedat .aedat4 .bag "),
    ):
        assert convert(source, target) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_records_name_files_and_sensors(raw: Path, tmp_path: Path) -> None:
    (raw / "x.dat").write_bytes(dat(some_events()))
    assert convert(raw, tmp_path / "npz") == 0
    assert json.loads((tmp_path / "npz" / ".x.dat.json").read_text()) == {
        "events": 50,
        "files": {"x.npz": 50},
        "sensors": [[240, 304]],
    }


def test_datasets_in_a_file_and_text(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(raw / "shd.h5", "w") as file:
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            file.create_dataset(f"spikes/{name}", (2,), h5py.vlen_dtype(kind))
            for number in range(2):
                file[f"spikes/{name}"][number] = np.arange(5 + number) / (4 if name == "times" else 1)
        file["labels"] = [3, 0]
    (raw / "README.txt").write_text("About these files.\n")
    (raw / "list.csv").write_text("t,y,x,p\n" + "".join(f"{t},{y},{x},{p}\n" for x, y, t, p in some_events()))
    assert convert(raw, tmp_path / "npz") == 0
    said = capsys.readouterr().out
    assert "failed: README.txt: line 1: 'About these files.' is not an event" in said
    assert "times read as seconds" not in said and "DVS.SENSOR_SIZE [1,700]: in 1 of 2 recordings" in said
    names = sorted(file.relative_to(tmp_path / "npz").as_posix() for file in (tmp_path / "npz").rglob("*.npz"))
    assert names == ["0/shd_1.npz", "3/shd_0.npz", "list.npz"]
    assert written(tmp_path / "npz" / "list.npz") == some_events()
    assert written(tmp_path / "npz" / "3" / "shd_0.npz") == [(k, 0, 250_000 * k, 1) for k in range(5)]


def filtered(events: list[Event], hot: set[tuple[int, int]], background: int, refractory: int) -> list[list[Event]]:
    """Return what hot pixels, background activity, refractory period, and a crop at (4, 2) with factor 2 leave."""
    cold = [event for event in events if event[:2] not in hot]
    near, last = [], dict[tuple[int, int], int]()
    for x, y, t, p in cold:
        around = {(i, j) for i in (x - 1, x, x + 1) for j in (y - 1, y, y + 1)} - {(x, y)}
        if any(t - last[pixel] <= background for pixel in around & last.keys()):
            near.append((x, y, t, p))
        last[x, y] = t
    rested, fired = [], dict[tuple[int, int], int]()
    for x, y, t, p in near:
        if t - fired.get((x, y), -refractory) >= refractory:
            rested.append((x, y, t, p))
            fired[x, y] = t
    cut = [((x - 4) // 2, (y - 2) // 2, t, p) for x, y, t, p in rested if 4 <= x < 19 and 2 <= y < 13]
    return [cold, near, rested, cut]


def test_filters(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_spool, "BLOCK_EVENTS", 64)
    noise = [(7, 5, t, 1) for t in range(0, 100_000, 150)]
    events = sorted([*some_events(2000, width=20, height=16), *noise], key=lambda event: event[2])
    (raw / "x.dat").write_bytes(dat(events))
    (raw / "far.dat").write_bytes(dat([(200, 100, 5, 1), (201, 100, 6, 1)]))
    (raw / "huge.csv").write_text("t,y,x,p\n0,0,0,1\n1,3000,3000,0\n")
    steps = filtered(events, {(7, 5)}, 1500, 4000)
    options = ["--hot-pixels", "--background", "1500", "--refractory", "4000"]
    options += ["--crop", "4", "2", "15", "11", "--downsample", "2"]
    assert convert(raw, tmp_path / "npz", *options) == 0
    assert written(tmp_path / "npz" / "x.npz") == steps[-1] and 100 < len(steps[-1]) < len(steps[0])
    said = capsys.readouterr().out
    assert "failed: far.dat: the filters removed all of 2 events" in said
    assert "failed: huge.csv: 3001 x 3001 pixels exceed the limit of 4194304 for --hot-pixels" in said
    assert "DVS.SENSOR_SIZE [6,8]: in 1 of 1 recordings" in said and "sensor size" not in said
    left = [len(events), *map(len, steps)]
    for number, name in enumerate(("--hot-pixels", "--background", "--refractory", "--crop")):
        assert f"removed by {name}: {left[number] - left[number + 1]} of {len(events)} events (" in said
    record = json.loads((tmp_path / "npz" / ".x.dat.json").read_text())
    assert sum(record["removed"].values()) == len(events) - len(steps[-1]) and record["sensors"] == [[6, 8]]
    assert convert(raw, tmp_path / "npz") == 2
    used = f"--window-events 0 {options[0]} --background 1500 --refractory 4000 --crop 4 2 15 11 --downsample 2"
    assert f"recordings converted with --window-time 0.0 {used}. Choose" in capsys.readouterr().err


def test_windows_with_a_step(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = some_events(50)
    (raw / "x.dat").write_bytes(dat(events))
    assert convert(raw, tmp_path / "count", "--window-events", "20", "--window-step", "10") == 0
    parts = [written(file) for file in sorted((tmp_path / "count").glob("*.npz"))]
    assert parts == [events[at : at + 20] for at in (0, 10, 20, 30)]
    assert convert(raw, tmp_path / "time", "--window-time", "30000", "--window-step", "20000") == 0
    parts = [written(file) for file in sorted((tmp_path / "time").glob("*.npz"))]
    starts = range(events[0][2], events[-1][2] + 1, 20_000)
    assert parts == [[event for event in events if start <= event[2] < start + 30_000] for start in starts]
    for wrong, message in (
        (["--window-step", "5"], "--window-step needs --window-time or --window-events"),
        (["--window-events", "9", "--window-step", "2.5"], "--window-step 2.5: must be a whole number of events"),
        (["--crop", "0", "0", "0", "9"], "--crop 0 0 0 9: WIDTH and HEIGHT must be at least 1"),
        (["--downsample", "0"], "--downsample"),
    ):
        assert convert(raw, tmp_path / "x", *wrong) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
