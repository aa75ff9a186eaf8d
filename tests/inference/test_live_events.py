"""Live event streams: servers over the loopback, recordings, silence, loss and return, a slow network, signals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from raw_recordings import aedat4, evt3

from slowfast.cli import events_live
from slowfast.config.defaults import get_cfg
from slowfast.datasets.dvs.event_windows import EventWindow
from slowfast.datasets.dvs.formats.base import EventBlock
from slowfast.datasets.types import Record
from slowfast.inference.event_sources import EventSource
from slowfast.inference.live_events import EventWindowOptions, LiveEventPredictor, LiveEvents, StreamWindow
from slowfast.inference.live_loop import Classified
from slowfast.inference.predictor import Predictor
from tests.csv_files import read_rows
from tests.inference.event_servers import (
    NAMES,
    Blocks,
    Server,
    block,
    live,
    records,
    refused,
    settings,
    shown,
    some,
    source,
    write_weights,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("kind", ["tcp", "dv", "evt3"])
def test_a_server_until_it_ends(kind: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = some(4000, 5_000_000, 7_050_000)
    if kind == "dv":
        stream = aedat4([events], closed=False, sizes=False)[14:]
    else:
        stream = evt3(events).replace(b";height=720;width=1280", b"") if kind == "evt3" else records(events)
    scheme = "dv" if kind == "dv" else "tcp"
    address = f"{scheme}://{Server([stream]).place}"
    words = (address, "--window", "500ms", "--step", 0.25, "--reconnect", 0, "--patience", 60)
    assert live(tmp_path, weights, *words) == 0
    [entry] = json.loads((tmp_path / "out" / "segments.json").read_text())["videos"]
    assert entry["events"] == 4000 and entry["path"] == address
    # Windows start when the server is connected: the first ones may lack events.
    assert entry["windows"] + entry["windows_without_events"] + entry.get("dropped_windows", 0) >= 7
    assert entry["windows"] == len(entry["segments"]) >= 1
    rows = read_rows(tmp_path / "out" / "segments.csv")
    assert len(rows) == entry["windows"] and {row["class_name"] for row in rows} <= set(NAMES)
    for row in rows:
        assert float(row["end"]) - float(row["start"]) == pytest.approx(0.5, abs=2e-3)
        assert float(row["latency_ms"]) >= 0
    text = capsys.readouterr().out
    assert "latency p95" in text and "events/s" in text and "4,000" in text


def classify(
    weights: Path,
    folder: Path,
    sources: list[EventSource],
    options: EventWindowOptions,
    stopped: Callable[[list[Classified[StreamWindow]]], bool] = lambda _: False,
) -> tuple[list[Classified[StreamWindow]], list[LiveEvents]]:
    found: list[Classified[StreamWindow]] = []
    predictor = LiveEventPredictor.from_config(settings(folder, weights), options)
    streams = predictor.run(sources, lambda *_: None, found.append, lambda: stopped(found))
    return found, streams


def test_windows_have_the_scores_of_recordings(weights: Path, tmp_path: Path) -> None:
    events = some(3000, 0, 1_000_000)
    options = EventWindowOptions(0.4, 0.3)
    found, [stream] = classify(weights, tmp_path, [source(Blocks([block(events)], None), live=False)], options)
    assert [round(one.window.start, 6) for one in found] == [0, 0.3, 0.6, 0.9] and stream.windows == 4
    window = [event for event in events if event[2] < 400_000]  # the first one: its number is that of the only file
    columns = {key: np.array(values) for key, values in zip("xytp", zip(*window, strict=True), strict=True)}
    np.savez(tmp_path / "a.npz", **columns)
    scores = Predictor.from_config(settings(tmp_path, weights))(tmp_path / "a.npz").scores
    assert scores is not None and found[0].scores is not None
    torch.testing.assert_close(found[0].scores, scores, rtol=0, atol=1e-6)
    by_count, _ = classify(
        weights, tmp_path, [source(Blocks([block(events)], None), live=False)], EventWindowOptions(1000, 500, True)
    )
    assert [len(one.window.events) for one in by_count] == [1000] * 5
    assert by_count[2].window.start == pytest.approx(events[1000][2] / 1e6)


def test_a_silent_camera_has_windows_without_events(weights: Path, tmp_path: Path) -> None:
    """The camera sends events of 0.3 s, and then none; its windows end all the same."""
    sent = Blocks([block(some(300, 10**12, 10**12 + 300_000))], wait=True)
    options = EventWindowOptions(0.1, 0.1, patience=0.05)
    found, [stream] = classify(weights, tmp_path, [source(sent)], options, lambda found: len(found) >= 12)
    silent = [one for one in found if one.scores is None]
    assert len(silent) >= 8 and silent[-1] is found[-1] and stream.silent == len(silent)
    assert all(len(one.window.events) == 0 and one.latency >= 0 for one in silent)
    assert [one.window.number for one in found] == sorted({one.window.number for one in found})
    never, [stream] = classify(
        weights, tmp_path, [source(Blocks([], wait=True))], options, lambda found: len(found) >= 3
    )
    assert all(one.scores is None for one in never) and stream.windows == 0


def test_a_slow_network_drops_windows_and_says_so(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network is busy with the first window until all others have passed: the newest one is next."""
    predictor = LiveEventPredictor.from_config(
        settings(tmp_path, weights), EventWindowOptions(0.1, 0.1, patience=60, reconnect=0)
    )
    passed, views, numbers = threading.Event(), predictor.views, list[int]()

    def slow(record: Record, window: EventWindow) -> object:
        numbers.append(window.number)
        assert passed.wait(60)
        return views(record, window)

    class Slow(Blocks):
        def blocks(self, stopped: Callable[[], bool]) -> Iterator[EventBlock | None]:
            yield block(some(500, 0, 150_000))
            while len(numbers) < 2:  # the first is the warm-up
                time.sleep(0.01)
                yield None
            yield block(some(4000, 150_000, 1_950_000))
            passed.set()

    passed.set()
    predictor.views = slow  # type: ignore[assignment]
    found: list[Classified[StreamWindow]] = []

    def on_events(stream: LiveEvents, _: object) -> None:
        if stream.events < 1000:
            passed.clear()

    [stream] = predictor.run([source(Slow([]))], on_events, found.append, lambda: False)
    assert stream.skipped >= 15 and stream.losses["dropped windows"] == stream.skipped
    last = found[-1].window.number  # in the end every window was classified, silent or dropped
    assert stream.windows + stream.silent + stream.skipped == last + 1 >= 20 and len(found[-1].window.events)


def test_loss_and_return(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The camera restarts with another clock, and then the run is stopped by SIGTERM."""
    server = Server(
        [records(some(1000, 10**9, 10**9 + 400_000))],
        [records(some(1000, 500, 400_000)), lambda: time.sleep(600)],
    )
    out = tmp_path / "out" / "segments.csv"

    def stop() -> None:
        until = time.monotonic() + 300
        while not (any("back after" in text for text in caplog.messages) and out.exists()):
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    address = f"tcp://{server.place}"
    with caplog.at_level("INFO"):
        assert live(tmp_path, weights, address, "--window", 0.1, "--reconnect", 0.05) == 0
    text = "\n".join(caplog.messages)
    assert f"{address}: connected" in text and f"{address}: the stream ended. Reconnecting in 0.05 s" in text
    assert f"{address}: back after" in text and "1000 events received before" in text
    [entry] = json.loads((tmp_path / "out" / "segments.json").read_text())["videos"]
    assert entry["reconnects"] == 1 and len(read_rows(out)) == entry["windows"] >= 1


def test_one_line_errors(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = [(300, 200, t, p) for _, _, t, p in some(500, 0, 1000)]
    np.savez(tmp_path / "a.npz", x=[0, 1], y=[0, 1], t=[0, 1], p=[0, 1])
    dv = aedat4([big], closed=False)[14:]
    for words, expected in (
        ((f"tcp://{refused()}",), "cannot connect: connection refused. Is the server running?"),
        (("unix:///nowhere.sock",), "unix:///nowhere.sock: cannot connect: no such file or directory"),
        (
            (f"dv://{Server([b'HTTP/1.1 400 Bad Request'] * 2).place}",),
            "not a stream of AEDAT 4 packets",
        ),
        (
            (f"tcp://{Server([dv]).place}",),
            "the sensor has 200 x 300 pixels (height x width), but DVS.SENSOR_SIZE is 12 x 16",
        ),
        ((f"tcp://{Server([records(big)]).place}",), "events are outside of the sensor of 12 x 16 pixels"),
        ((f"tcp://{Server([b'']).place}", "--reconnect", 0), "it ended after 0 events, without a complete window"),
        ((tmp_path / "gone.npz",), "gone.npz does not exist"),
        ((tmp_path / "a.npz", "--window", "5events"), "it ended after 2 events, without a complete window"),
        ((tmp_path / "a.npz", "--window", "5events", "--step", 1), "must have the same unit"),
        ((tmp_path / "a.npz", "--window", "0"), "'0' is no length of a window"),
        (("tcp://host",), "tcp://host: invalid address. Use tcp://HOST:PORT"),
        (("ftp://host:1",), "unknown kind of stream ftp"),
        (("tcp://host:1?format=evt4",), "unknown format. Did you mean evt"),
        (("dv://h:1?format=evt3",), "dv:// streams have the format aedat4"),
        (("tcp://me:geheim@host:1",), "tcp://***@host:1: streams of events have no user and password"),
        (("tcp://host:1?token=geheim",), "tcp://host:1?token=***: unknown option token of the address"),
    ):
        assert live(tmp_path, weights, *words) == 2, words
        error = capsys.readouterr().err.strip()
        assert expected in error and "geheim" not in error
        assert error.splitlines()[-1].startswith("error: ") and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_two_sources_and_merged_segments_in_a_terminal(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    np.savez(
        tmp_path / "a.npz", **dict(zip("xytp", map(np.array, zip(*some(2000, 0, 10**6), strict=True)), strict=True))
    )
    address = f"tcp://{refused()}"
    words = (tmp_path / "a.npz", address, "--speed", "max", "--window", "100ms", "--merge")
    assert live(tmp_path, weights, *words) == 0
    [failed] = read_rows(tmp_path / "out" / "failed.csv")
    assert (failed["path"], failed["lost"]) == (address, "yes")
    [entry] = json.loads((tmp_path / "out" / "segments.json").read_text())["videos"]
    assert entry["windows"] == sum(segment.get("windows", 1) for segment in entry["segments"]) == 11
    lines = re.findall(r"\r([^\r\n]+)", capsys.readouterr().out)
    assert any("1.10 s" in line and "latency" in line for line in lines) and max(map(len, lines)) <= 120


def test_the_command_of_the_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs as it is written, with another address, port, output folder and fewer events, against a server."""
    from slowfast.models import build_model  # builds only where a test needs it

    text = (ROOT / "docs" / "EVENT_CAMERAS.md").read_text().partition("## Live streams")[2]
    found = re.search(r"slowfast events live (dv://\S+ .*?[^\\])\n", text, re.DOTALL)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    cfg = get_cfg()
    cfg.merge_from_file(ROOT / "configs" / "DVS" / "DVSGESTURE_EVENT2VEC.yaml")
    torch.save({"model_state": build_model(cfg).state_dict()}, tmp_path / "weights.pyth")
    events = aedat4([some(5000, 10**12, 10**12 + 1_600_000)], closed=False, sizes=False)[14:]
    words[0] = f"dv://{Server([events]).place}"
    words[words.index("weights.pyth")] = str(tmp_path / "weights.pyth")
    words.insert(words.index("--page") + 1, "0")
    options = ["--reconnect", "0", "--out", str(tmp_path / "out")]
    assert events_live.main([*options, *words, "NUM_GPUS", "0", "DVS.NUM_EVENTS", "64"]) == 0
    [entry] = json.loads((tmp_path / "out" / "segments.json").read_text())["videos"]
    assert entry["events"] == 5000 and entry["windows"] >= 1
    assert "The page is at http://127.0.0.1:" in capsys.readouterr().out


def test_ctrl_c_during_silence(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        try:
            shown(capsys, "no events ")
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    address = f"tcp://{Server([lambda: time.sleep(600)]).place}"
    assert live(tmp_path, weights, address, "--window", 0.1) == 0
    [entry] = json.loads((tmp_path / "out" / "segments.json").read_text())["videos"]
    assert entry["windows_without_events"] >= 1 and not entry["segments"] and not entry["events"]
    assert read_rows(tmp_path / "out" / "segments.csv") == []
