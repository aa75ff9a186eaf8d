"""Screens that are closed, full, narrow, silent, or limited to ASCII; the heartbeat."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from slowfast.utils import screen
from slowfast.utils.logging import get_logger, log_table, open_log, start_logging, stop_logging
from slowfast.utils.screen import Heartbeat, Progress, phase
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

WORK = """
import sys
from pathlib import Path
from slowfast.cli.command import exit_status
from slowfast.utils.logging import get_logger, messages_on_screen
from slowfast.utils.screen import show

def work():
    for number in range(2000):
        show(f"line {number} \\u00e9\\u4e2d\\udce9 " + "x" * 100)
        get_logger().info("logged %d", number)
    show("an error", error=True)
    Path(sys.argv[1]).write_text("done")

with messages_on_screen():
    status = exit_status(work)
sys.exit(status)
"""


def shell(line: str, result: Path, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run the work with a redirection; the status of it is printed to the shell's standard error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORK": WORK, "RESULT": str(result), **more}
    line = line.replace("WORK", f'"{sys.executable}" -c "$WORK" "$RESULT"')
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, timeout=180)


@pytest.mark.parametrize(
    ("line", "err"),
    [
        ("WORK | head -n 1; exit ${PIPESTATUS[0]}", b"an error\n"),
        ("WORK 2>&1 | head -n 1; exit ${PIPESTATUS[0]}", b""),
        ("WORK >&-", b"an error\n"),
        ("WORK 2>&-", b""),
        ("WORK <&- >&- 2>&-", b""),
        ("WORK 2>/dev/full", b""),
    ],
)
def test_the_work_goes_on_without_a_screen(tmp_path: Path, line: str, err: bytes) -> None:
    done = shell(line, tmp_path / "result")
    assert done.returncode == 0 and done.stderr == err
    assert (tmp_path / "result").read_text() == "done"


def test_output_that_is_lost_is_a_failure_in_one_line(tmp_path: Path) -> None:
    done = shell("WORK >/dev/full", tmp_path / "result")
    assert done.returncode == 1 and (tmp_path / "result").read_text() == "done"
    assert done.stderr == b"an error\nerror: standard output is not writable: no space left on device\n"


def test_a_screen_that_knows_ascii_only(tmp_path: Path) -> None:
    done = shell("WORK", tmp_path / "result", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.startswith(b"line 0 \\xe9\\u4e2d\\xe9 xxx")


def test_messages_are_safe_on_the_screen_and_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(0)
    try:
        get_logger().info("before %s", "rtsp://u:s3cret@h/x\n\x1b[31m")
        open_log(tmp_path)
        log_table("a  b\n1  2\x1b")
        get_logger().warning("it broke", exc_info=ValueError("rtsp://u:s3cret@h/\x1b"))
    finally:
        stop_logging()
    for text in (capsys.readouterr().out, (tmp_path / "stdout.log").read_text()):
        lines = text.splitlines()
        assert lines[0].endswith(r"before rtsp://***@h/x\n\x1b[31m")
        assert lines[2:4] == ["a  b", r"1  2\x1b"]
        assert lines[-1] == r"ValueError: rtsp://***@h/\x1b" and "s3cret" not in text


def test_a_full_disk_does_not_end_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stdout.log").symlink_to("/dev/full")
    start_logging(0)
    try:
        open_log(tmp_path)
        for number in range(3):
            get_logger().info("line %d", number)
    finally:
        stop_logging()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.count("\n") == 1 and "stdout.log cannot be written" in err and "No space left" in err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a heartbeat after 0.3 seconds, in a process where nothing is in progress."""
    monkeypatch.setattr(screen, "_phases", [])
    monkeypatch.setattr(screen, "SILENCE", 0.3)
    monkeypatch.setattr(screen, "_CHECK_EVERY", 0.02)


@pytest.mark.usefixtures("quick")
def test_silent_work_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    heard = threading.Event()

    def tell(text: str) -> None:
        lines.append(text)
        heard.set()

    Heartbeat.begin(tell)
    try:
        for open_one, expected in (
            (lambda: phase("drawing plots"), r"still drawing plots \(\d+ s\)"),
            (lambda: Units(), r"still busy: train 3/9 steps \(\d+ s\)"),
        ):
            with open_one():
                heard.clear()
                assert heard.wait(120)
                assert re.fullmatch(expected, lines[-1])
        heard.clear()
        assert heard.wait(120) and lines[-1].startswith("still working")
    finally:
        Heartbeat.end()
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


class Units:
    """Three of nine steps."""

    def __enter__(self) -> None:
        self.progress = Progress("train", 9, "steps", shown=False, every=100, done=3)

    def __exit__(self, *error: object) -> None:
        self.progress.close()


def test_progress_is_told_by_time_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    monkeypatch.setattr("slowfast.utils.screen.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("slowfast.utils.screen.SILENCE", 10.0)
    progress = Progress("train", 1000, "steps", shown=True, every=100)
    with caplog.at_level(logging.INFO, "slowfast"):
        for _ in range(30):
            now[0] += 3.0
            progress.advance()
    progress.close()
    counts = [int(re.findall(r"train (\d+)/1000", message)[0]) for message in caplog.messages]
    assert counts == [4, 8, 12, 16, 20, 24, 28]  # every 12 s


BAR = """
import sys, time
from slowfast.utils.logging import get_logger, messages_on_screen
from slowfast.utils.screen import Progress, show
with messages_on_screen():
    progress = Progress("train", 40, "steps", True, 1000)
    for number in range(40):
        progress.advance(f"note {number}")
        if number % 10 == 5:
            get_logger().info("message %d", number)
            show(f"shown {number}")
        time.sleep(0.02)
    progress.close()
"""


@pytest.mark.parametrize(
    ("term", "columns", "bar"), [("xterm", 80, True), ("dumb", 80, False), ("xterm", 8, False), ("xterm", 0, False)]
)
def test_a_bar_and_lines_do_not_overwrite_each_other(term: str, columns: int, bar: bool) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": term, "COLUMNS": "1"}
    process = subprocess.Popen([sys.executable, "-c", BAR], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    data = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # closed
            break
        data += piece
    assert process.wait(timeout=120) == 0
    os.close(ours)
    text = data.decode()
    assert ("train:" in text) == ("\r" in text.replace("\r\n", "")) == bar
    # What a terminal shows: after a carriage return the rest of the line is written over what was there.
    for number in (5, 15, 25, 35):
        for word in ("message", "shown"):
            [line] = [line for line in text.replace("\r\n", "\n").split("\n") if f"{word} {number}" in line]
            assert line.rsplit("\r", 1)[-1] == f"{word} {number}"


def test_forked_processes_are_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is forked while the heartbeat prints can print itself."""
    monkeypatch.setattr(screen, "SILENCE", -1.0)
    monkeypatch.setattr(screen, "_CHECK_EVERY", 0.0005)
    Heartbeat.begin(lambda text: time.sleep(0.001))
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                locked = screen._printing.acquire(timeout=120)
                os._exit(0 if locked else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        Heartbeat.end()
