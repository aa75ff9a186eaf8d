"""Raw recordings to .npz: each format against a plain encoder and decoder written word by word."""

from __future__ import annotations

import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.index import read_event_index
from slowfast.datasets.dvs.recording import Recording
from slowfast.errors import UserError
from slowfast.prepare.aedat import read_aedat3
from slowfast.prepare.convert_events import CutSettings, convert_recordings, read_mat
from slowfast.prepare.convert_events_command import main
from slowfast.prepare.prophesee import decode_evt2, decode_evt3, read_dat, read_raw

Event = tuple[int, int, int, int]  # x, y, t, p


def some_events(n: int = 50, seed: int = 0, longest: int = 100_000) -> list[Event]:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, longest, n))
    x, y, p = (rng.integers(0, limit, n) for limit in (300, 200, 2))
    return [tuple(int(v) for v in row) for row in zip(x, y, t, p, strict=True)]


def rows(events: object) -> list[Event]:
    return [tuple(int(v) for v in row) for row in zip(*(getattr(events, key) for key in "xytp"), strict=True)]


def dat(events: list[Event]) -> bytes:
    body = b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for x, y, t, p in events)
    return b"% Data file containing CD events.\n% Height 240\n% Width 304\n" + bytes([0, 8]) + body


def evt2(events: list[Event]) -> bytes:
    words, high = [], -1
    for x, y, t, p in events:
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high)
        words.append(p << 28 | (t & 0x3F) << 22 | x << 11 | y)
    return b"% evt 2.0\n% end\n" + struct.pack(f"<{len(words)}I", *words)


def evt3_words(events: list[Event]) -> list[int]:
    words, state = [], {"high": -1, "low": -1, "y": -1}
    for x, y, t, p in events:
        high, low = t >> 12 & 0xFFF, t & 0xFFF
        if high != state["high"]:
            state |= {"high": high, "low": 0}
            words.append(0x8 << 12 | high)
        if low != state["low"]:
            state["low"] = low
            words.append(0x6 << 12 | low)
        if y != state["y"]:
            state["y"] = y
            words.append(y)
        words.append(0x2 << 12 | p << 11 | x)
    return words


def aedat(events: list[Event], overflow: int = 0) -> bytes:
    body = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for start in range(0, len(events), 20):
        packet = events[start : start + 20]
        body += struct.pack("<hhiiiiii", 1, 0, 8, 4, overflow, len(packet) + 1, len(packet) + 1, len(packet))
        words = [(x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in packet]
        body += b"".join(struct.pack("<Ii", *word) for word in [*words, (5 << 17, 0)])  # the last is not valid
        body += struct.pack("<hhiiiiii", 3, 0, 8, 4, 0, 1, 1, 1) + b"\0" * 8  # another type
    return body


class TestFormats:
    def test_dat_and_raw(self, tmp_path: Path) -> None:
        events = some_events()
        words = evt3_words(events)
        raw3 = b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n" + struct.pack(f"<{len(words)}H", *words)
        for name, data, read in (
            ("a.dat", dat(events), read_dat),
            ("b.raw", evt2(events), read_raw),
            ("c.raw", raw3, read_raw),
        ):
            (tmp_path / name).write_bytes(data)
            assert rows(read(tmp_path / name)) == events

    @settings(deadline=None, max_examples=40)
    @given(n=st.integers(0, 40), seed=st.integers(0, 99))
    def test_evt3_over_its_counters_range(self, n: int, seed: int) -> None:
        events = some_events(n, seed, longest=40_000_000)  # 24 bits: 16.8 s
        gaps = np.diff([e[2] for e in events], prepend=0)
        if n and gaps.max() > 8_000_000:
            return  # a counter's turn can be told only where something comes within half of it
        found = rows(decode_evt3(np.array(evt3_words(events), np.uint16)))
        if n:
            turns = events[0][2] >> 24
            assert found == [(x, y, t - (turns << 24), p) for x, y, t, p in events]

    def test_evt3_masks(self) -> None:
        words = [0x8001, 0x6005, 0x0007, 0x3000 | 1 << 11 | 100, 0x4000 | 0b100000000001, 0x5000 | 0b10, 0x4000 | 0b1]
        words += [0x2000 | 9]
        want = [(100, 7, 4101, 1), (111, 7, 4101, 1), (113, 7, 4101, 1), (120, 7, 4101, 1), (9, 7, 4101, 0)]
        assert rows(decode_evt3(np.array(words, np.uint16))) == want

    def test_evt3_low_time_begins_anew_with_the_high_one(self) -> None:
        words = [0x8001, 0x6005, 0x0007, 0x2001, 0x8001, 0x2002, 0x8002, 0x2003]
        assert [e[2] for e in rows(decode_evt3(np.array(words, np.uint16)))] == [4101, 4101, 8192]

    def test_what_comes_before_the_first_time_is_left_out(self) -> None:
        assert rows(decode_evt3(np.array([0x0007, 0x2001], np.uint16))) == []
        assert rows(decode_evt2(np.array([1 << 28 | 5], np.uint32))) == []

    def test_aedat(self, tmp_path: Path) -> None:
        events = some_events()
        (tmp_path / "a.aedat").write_bytes(aedat(events, overflow=1))
        assert rows(read_aedat3(tmp_path / "a.aedat")) == [(x, y, t + 2**31, p) for x, y, t, p in events]

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("a.aedat", b"#!AER-DAT4.0\r\nrest", "no AEDAT 3 file"),
            ("a.aedat", aedat(some_events())[:-9], "damaged|ends inside"),
            ("a.raw", b"% evt 2.1\n% end\n....", "neither EVT 2.0 nor EVT 3.0"),
            ("a.dat", b"% no events\n\x0c\x10", "no .dat file"),
        ],
    )
    def test_damaged_files(self, tmp_path: Path, name: str, data: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(data)
        read = {"aedat": read_aedat3, "raw": read_raw, "dat": read_dat}[name.split(".")[1]]
        with pytest.raises(DecodeError, match=message):
            read(tmp_path / name)


def test_a_folder_whole_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "raw", tmp_path / "npz"
    (source / "a").mkdir(parents=True)
    (source / "a" / "x.dat").write_bytes(dat(some_events()))
    (source / "y.raw").write_bytes(evt2(some_events(seed=1)))
    (source / "broken.raw").write_bytes(b"% nothing\n")
    assert main([str(source), str(target), "--workers", "1"]) == 0
    assert "failed: broken.raw" in capsys.readouterr().out
    found = Recording(target / "a" / "x.npz").take(slice(None))
    assert [tuple(int(v) for v in row) for row in zip(*(found[key] for key in "xytp"), strict=True)] == some_events()
    before = (target / "y.npz").stat().st_mtime_ns
    assert main([str(source), str(target), "--workers", "1"]) == 0
    assert "2 were there already" in capsys.readouterr().out and (target / "y.npz").stat().st_mtime_ns == before
    assert not list(target.rglob("*.part"))


def test_mat_files_need_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    (tmp_path / "a.mat").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"slowfast\[events\]"):
        read_mat(tmp_path / "a.mat")


def test_mat_files_of_asldvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy's part is not tested here: columns as it gives them."""
    events = np.array(some_events()).reshape(-1, 4)
    content = {key: events[:, [column]] for column, key in enumerate(("x", "y", "ts", "pol"))}
    scipy_io = types.ModuleType("scipy.io")
    monkeypatch.setattr(scipy_io, "loadmat", lambda path: content, raising=False)
    monkeypatch.setitem(sys.modules, "scipy", types.ModuleType("scipy"))
    monkeypatch.setitem(sys.modules, "scipy.io", scipy_io)
    assert rows(read_mat(tmp_path / "a.mat")) == some_events()
    content.pop("ts")
    with pytest.raises(DecodeError, match="with ts, x, y, pol"):
        read_mat(tmp_path / "a.mat")


def test_windows(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.dat").write_bytes(dat(some_events(50)))
    convert_recordings(tmp_path / "raw", tmp_path / "count", CutSettings(window_events=20), workers=1)
    files = sorted((tmp_path / "count").glob("*.npz"))
    assert [(file.name, Recording(file).n) for file in files] == [("x_00000.npz", 20), ("x_00001.npz", 20)]
    convert_recordings(tmp_path / "raw", tmp_path / "time", CutSettings(window_time=25_000), workers=1)
    parts = [Recording(file).take(slice(None))["t"] for file in sorted((tmp_path / "time").glob("*.npz"))]
    assert sum(map(len, parts)) == 50 and all(np.ptp(t) < 25_000 for t in parts)
    assert main([str(tmp_path / "raw"), str(tmp_path / "x"), "--window-time", "5", "--window-events", "5"]) == 2


def test_dvs_gesture_is_cut_by_its_labels(tmp_path: Path) -> None:
    source = tmp_path / "DvsGesture"
    source.mkdir()
    events = some_events(200)
    for user in ("user01_led", "user02_led"):
        (source / f"{user}.aedat").write_bytes(aedat(events))
        (source / f"{user}_labels.csv").write_text(
            "class,startTime_usec,endTime_usec\n11,1000,40000\n1,50000,90000\n2,999000,999001\n"
        )
    (source / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (source / "trials_to_test.txt").write_text("user02_led.aedat\n")
    convert_recordings(source, tmp_path / "npz", CutSettings(), workers=1)
    train = read_event_index(tmp_path / "npz", "train", 11)
    assert [record.name for record in train] == ["train/0/user01_led_1.npz", "train/10/user01_led_0.npz"]
    t = Recording(train[1].path).take(slice(None))["t"]
    assert t.tolist() == [e[2] for e in events if 1000 <= e[2] < 40000]
    assert {r.name for r in read_event_index(tmp_path / "npz", "test", 11)} == {
        "test/0/user02_led_1.npz",
        "test/10/user02_led_0.npz",
    }
