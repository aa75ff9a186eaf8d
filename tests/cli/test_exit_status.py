"""Exit statuses shared by all commands, and how files and config keys are distinguished."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import split_overrides
from slowfast.cli.train import TEST, parse
from slowfast.errors import DataError, UserError

pytestmark = pytest.mark.slow


def fail_with(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (DataError("no video"), 2, "error: no video\n"),
        (KeyboardInterrupt(), 130, "try again\n"),
        (ZeroDivisionError("oh"), 1, "Traceback"),
        (DataError("a\nb\x1b[2J of rtsp://u:s3cret@h/x"), 2, "error: a\\nb\\x1b[2J of rtsp://***@h/x\n"),
        (
            OSError(errno.ENOSPC, "No space", "out/x.csv"),
            2,
            "error: Cannot write out/x.csv: the disk of out is full",
        ),
        (
            OSError(errno.EDQUOT, "Quota"),  # the system does not say which
            2,
            "error: Cannot write: the disk of the output folder, of temporary files (TMPDIR) or of shared memory "
            "(/dev/shm) is full for this user: ",
        ),
        (OSError(errno.EIO, "Input/output error"), 1, "Traceback"),
    ],
)
def test_each_end_has_its_status_and_words(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(lambda: fail_with(error), interrupted="try again") == status
    assert capsys.readouterr().err.startswith(words)


def test_a_traceback_has_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: fail_with(RuntimeError("rtsp://u:s3cret@h/x\x1b[2J"))) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith("RuntimeError: rtsp://***@h/x\\x1b[2J\n")
    assert "s3cret" not in err  # nor in the line of this file, which is quoted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("hangup_by_default")
def test_a_signal_ends_a_tool_at_once(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        os.kill(os.getpid(), number)
        time.sleep(600)

    assert exit_status(work) == 128 + number
    assert capsys.readouterr().err == f"Received {number.name}, stopping. Files that were written are complete\n"
    assert signal.getsignal(number) == signal.SIG_DFL


def test_what_the_work_returns_is_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert [exit_status(lambda: None), exit_status(lambda: 0), exit_status(lambda: 1)] == [0, 0, 1]
    assert exit_status(lambda: fail_with(UserError("told by another process")), quiet=True) == 2
    assert capsys.readouterr().err == ""


def test_a_parser_complains_in_one_line_with_an_example() -> None:
    parser = CommandParser("a.py", "does a", "%(prog)s FILE", "a.py clip.mp4")
    parser.add_argument("file")
    with pytest.raises(UserError, match=r"file\. Example: a\.py clip\.mp4"):
        parser.parse_args([])


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("clip.mp4 TEST.BATCH_SIZE 4", 1),
        ("clip.mp4 OUTPUT_DIR out", 1),
        ("clip.mp4 TEST.BATCH_SIZE=4", 1),
        ("--layer NORM clip.mp4 NUM_GPUS 0", 3),  # an option's value
        ("clip.mp4 --annotate NUM_GPUS 0", 2),  # a flag has none
        ("THERE NUM_GPUS 0", 1),  # a file of that name
        ("clip.mp4", 1),
    ],
)
def test_keys_begin_after_the_files(line: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "THERE").touch()
    words = line.split()
    assert split_overrides(words, {"--annotate"}) == (words[:files], words[files:])


def test_weights_option_of_a_test() -> None:
    line = parse(["--cfg", "a.yaml", "--weights", "w.pyth", "MODEL.NUM_CLASSES", "5"], TEST)
    assert line.overrides[-4:] == ["TEST.CHECKPOINT_FILE_PATH", "w.pyth", "MODEL.NUM_CLASSES", "5"]
    with pytest.raises(UserError, match="both name a checkpoint"):
        parse(["--cfg", "a.yaml", "--weights", "w.pyth", "TEST.CHECKPOINT_FILE_PATH", "v.pyth"], TEST)
