"""Live event streams: servers over the loopback, recordings, silence, loss and return, a slow network, signals."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from event_files import SENSOR, event_settings
from raw_recordings import Event, aedat4, evt3

from slowfast.cli import events_live
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.event_windows import EventWindow
from slowfast.datasets.dvs.formats.base import EventBlock
from slowfast.datasets.dvs.frames import event_frames, frame_colors
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.index.samples import UNLABELED
from slowfast.datasets.types import EvalVideo, Record
from slowfast.errors import ConfigError, UserError
from slowfast.event_driven.connection import Connection
from slowfast.inference.event_feed import EventFeed, StreamClock
from slowfast.inference.event_sources import EventSource, StreamAddress
from slowfast.inference.live_events import EventWindowOptions, LiveEventPredictor, LiveEvents, StreamWindow
from slowfast.inference.live_loop import Classified
from slowfast.inference.predictor import Predictor
from slowfast.inference.stream import FrameViews, window_views
from tests.chromium import MISSING, find_chromium, running_chromium

EMPTY = str(ROOT / "tests" / "empty.yaml")
NAMES = ["left", "right", "<b>up</b>"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with class names."""
    from slowfast.models import build_model  # builds only where a test needs it
    from tests.random_weights import randomized

    path = tmp_path_factory.mktemp("weights")
    cfg = settings(path, path / "none")
    torch.save({"model_state": randomized(build_model(cfg)).state_dict(), "class_names": NAMES}, path / "w.pyth")
    return path / "w.pyth"


def overrides(folder: Path, weights: Path) -> list[str]:
    return [
        str(word) for word in (*event_settings(folder / "none", folder / "out"), "TEST.CHECKPOINT_FILE_PATH", weights)
    ]


def settings(folder: Path, weights: Path) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(overrides(folder, weights))
    return cfg


def live(folder: Path, weights: Path, *words: object) -> int:
    return events_live.main([*map(str, words), "--cfg", EMPTY, *overrides(folder, weights)])


def some(n: int, first: int, last: int, seed: int = 0) -> list[Event]:
    """Return n events with the sensor of the tests, the first and last of given times in microseconds."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(first, last, n))
    t[0], t[-1] = first, last
    columns = [*(rng.integers(0, limit, n) for limit in (SENSOR[1], SENSOR[0])), t, rng.integers(0, 2, n)]
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True)]


def records(events: list[Event]) -> bytes:
    return b"".join(struct.pack("<qHHBxxx", t, x, y, p) for x, y, t, p in events)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


class Server(threading.Thread):
    """Server of event streams: some parts for each client in turn, then it closes the connection.

    A part is bytes to send, or a function to call.
    """

    def __init__(self, *clients: Iterable[bytes | Callable[[], object]]) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self._clients = clients
        self.start()

    def run(self) -> None:
        try:
            for parts in self._clients:
                client, _ = self.listening.accept()
                with client:
                    for part in parts:
                        client.sendall(part) if isinstance(part, bytes) else part()
        except OSError:
            pass  # the client has left
        finally:
            self.listening.close()


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
    rows = rows_of(tmp_path / "out" / "segments.csv")
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


class Blocks:
    """Open source of given blocks, after which a function waits for the end."""

    missing, sensor = None, None

    def __init__(self, blocks: list[EventBlock | None], speed: float | None = 1.0, wait: bool = False) -> None:
        self.speed, self._blocks, self._wait = speed, blocks, wait

    def blocks(self, stopped: Callable[[], bool]) -> Iterator[EventBlock | None]:
        yield from self._blocks
        while self._wait and not stopped():
            time.sleep(0.01)
            yield None

    def close(self) -> None:
        """Do nothing."""


def source(opened: Blocks, live: bool = True) -> EventSource:
    return EventSource(Record(0, Path("camera"), "camera", UNLABELED), lambda: opened, live)


def block(events: list[Event]) -> EventBlock:
    x, y, t, p = (np.array(column, np.int64) for column in zip(*events, strict=True))
    return EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))


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


def test_memory_is_bounded_and_losses_are_counted() -> None:
    blocks = [block(some(100, 1000 * k, 1000 * k + 900)) for k in range(20)]
    feed = EventFeed(source(Blocks(list(blocks))), SENSOR, Connection("camera", 0.0), threading.Event(), queued=500)
    while not feed._done:
        time.sleep(0.01)
    assert sum(map(len, feed.take())) == 500 and feed.dropped == 1500 and feed.ended
    # A recording that is read as fast as possible waits instead.
    waiting = source(Blocks(list(blocks), None), live=False)
    feed = EventFeed(waiting, SENSOR, Connection("camera", 0.0), threading.Event(), queued=500)
    total = 0
    while not feed.ended:
        taken = sum(map(len, feed.take()))
        assert taken <= 600
        total += taken
        time.sleep(0.01)
    assert total == 2000 and not feed.dropped


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
    assert entry["reconnects"] == 1 and len(rows_of(out)) == entry["windows"] >= 1


def refused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


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


def test_settings_that_do_not_fit(weights: Path, tmp_path: Path) -> None:
    for keys, message in (
        (["DVS.NUM_EVENTS", 0], "DVS.NUM_EVENTS 0 takes all events of a window"),
        (["DVS.CLUSTERS", True], "live streams contain events, not clusters"),
    ):
        cfg = settings(tmp_path, weights)
        cfg.merge_from_list(keys)
        with pytest.raises(ConfigError, match=message):
            window_views(cfg, by_count=False)
    cfg = get_cfg()
    with pytest.raises(UserError, match="need a network of events"):
        window_views(cfg, by_count=False)


@pytest.mark.parametrize("kind", ["counts", "time_surface"])
def test_frames_of_a_window(kind: str, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["TEST.DATASET", "dvsframes", "DVS.SENSOR_SIZE", [12, 16], "DATA.NUM_FRAMES", 4])
    cfg.merge_from_list(["DVS.FRAMES", kind, "DATA.TEST_CROP_SIZE", 12, "TEST.NUM_SPATIAL_CROPS", 1])
    views = window_views(cfg, by_count=False)
    assert isinstance(views, FrameViews)
    x, y, t, p = (np.array(column) for column in zip(*some(500, 2_000_100, 2_399_000), strict=True))
    window = EventWindow(5, 2_000_000.0, 2_400_000.0, EventColumns(x, y, t, p))
    sample = views(Record(0, tmp_path, "camera", UNLABELED), window)
    assert isinstance(sample, EvalVideo) and sample.frames is not None and sample.frames.shape == (4, 12, 16, 3)
    plain = np.zeros((4, 2, 12, 16), np.float32)
    for part in range(4):
        for ex, ey, et, ep in zip(x, y, t, p, strict=True):
            first, end = 2_000_000 + part * 100_000, 2_000_000 + (part + 1) * 100_000
            if kind == "counts" and first <= et < end:
                plain[part, ep, ey, ex] += 1
            elif kind == "time_surface" and et < end:
                plain[part, ep, ey, ex] = np.exp((et - end) / cfg.DVS.FRAME_DECAY)
    np.testing.assert_array_equal(sample.frames.numpy(), frame_colors(plain, kind, cfg.DVS.FRAME_GAIN))
    events = EventColumns(x, y, t.astype(float), p)
    np.testing.assert_allclose(event_frames(events, SENSOR, 4, kind, span=(2e6, 4e5)), plain, rtol=1e-5)


def test_clock_of_a_stream() -> None:
    clock = StreamClock(1.0, True, began=100.0)
    assert clock.watermark(100.5, 0.1) == pytest.approx(0.4e6)  # no event yet
    times, jump = clock.stream_times(np.array([5_000_000, 5_010_000]), 101.0)
    assert times.tolist() == [1_000_000, 1_010_000] and not jump
    clock.stream_times(np.array([5_500_000]), 101.7)  # 0.2 s late
    assert clock.wall(1_600_000) == pytest.approx(100 + 1.6 - 0.01)  # by the earliest
    assert clock.watermark(102.0, 0.1) == pytest.approx(1_500_000 + 200_000)
    times, jump = clock.stream_times(np.array([4_900_000]), 101.8)
    assert times.tolist() == [900_000] and not jump  # an event out of order
    times, jump = clock.stream_times(np.array([10**15]), 102.0)
    assert "jumped by" in jump and times.tolist() == [2_000_000]
    times, jump = clock.stream_times(np.array([7]), 102.5)
    assert "started again" in jump and times.tolist() == [2_500_000]
    clock.restart()
    times, jump = clock.stream_times(np.array([8]), 110.0)
    assert not jump and times.tolist() == [10_000_000]


def test_addresses() -> None:
    parse = StreamAddress.parse
    assert parse("dv://camera.local:7777") == StreamAddress("camera.local", 7777, "", "aedat4")
    assert parse("TCP://[::1]:5?format=evt3") == StreamAddress("::1", 5, "", "evt3")
    assert parse("dv:///run/dv.sock") == StreamAddress("", 0, "/run/dv.sock", "aedat4")
    assert parse("unix:///run/a.sock") == StreamAddress("", 0, "/run/a.sock", None)


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
    [failed] = rows_of(tmp_path / "out" / "failed.csv")
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


def shown(capsys: pytest.CaptureFixture[str], pattern: str) -> str:
    """Wait until a pattern is shown, and return what matches."""
    text, until = "", time.monotonic() + 300
    while (found := re.search(pattern, text)) is None:
        assert time.monotonic() < until, text
        text += capsys.readouterr().out
        time.sleep(0.02)
    return found[0]


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
    assert rows_of(tmp_path / "out" / "segments.csv") == []


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason=MISSING)
def test_the_page(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page shows while a camera sends events, and after its connection is lost."""
    stop, lose, seen = threading.Event(), threading.Event(), list[object]()

    def send_until_lost() -> Iterator[bytes]:
        for k in range(100_000):
            if lose.is_set():
                return
            yield records(some(200, 10_000 * k, 10_000 * k + 9_999, k))
            time.sleep(0.01)

    server = Server(send_until_lost())

    def visit() -> None:
        try:
            address = shown(capsys, r"http://127.0.0.1:\d+/")
            with running_chromium(str(find_chromium())) as browser:
                for width, dark in ((1280, False), (390, True)):
                    browser.open(address, width=width, dark=dark)
                    browser.wait_for("document.querySelectorAll('.best .fill').length === 3", 60)
                    browser.wait_for("document.querySelector('img').naturalWidth === 16", 60)
                    assert browser.run("document.querySelector('h2').textContent") == f"tcp://{server.place}"
                    best = browser.run("[...document.querySelectorAll('.best span')].map((one) => one.textContent)")
                    assert sorted(best) == sorted(NAMES)  # as text, also that with tags
                    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
                    tiles = "[...document.querySelectorAll('.tile')].map((one) => one.textContent)"
                    browser.wait_for(f"{tiles}.some((one) => /[1-9].*events.s$/.test(one))", 60)
                    assert len(browser.run(tiles)) == 7
                    if shots := os.environ.get("SLOWFAST_SCREENSHOTS"):
                        browser.screenshot(Path(shots) / f"live_{width}.png")
                lose.set()
                server.listening.close()
                browser.wait_for("document.querySelector('.bad').textContent.startsWith('No connection')", 60)
                browser.wait_for("document.querySelector('.class').textContent === 'no events'", 60)
                assert not browser.errors
                assert {request.split("/")[2] for request in browser.requests} == {address.split("/")[2]}
            host = address.split("/")[2]
            with socket.create_connection(host.split(":")) as other:  # a name that leads here
                other.sendall(b"GET /state.json HTTP/1.1\r\nHost: evil.example:80\r\n\r\n")
                assert other.recv(100).startswith(b"HTTP/1.1 421")
        except BaseException as error:
            seen.append(error)
        finally:
            lose.set()
            stop.set()
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    words = (f"tcp://{server.place}", "--window", 0.2, "--page", 0, "--reconnect", 0.5)
    assert live(tmp_path, weights, *words) == 0
    visitor.join(60)
    assert stop.is_set() and not seen, seen
