"""Crash report that names the files a process was reading when it was killed, for example by a decoder crash."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import TracebackType

from slowfast.utils.text import plain

_JOIN = 5.0  # seconds for the companion process to end
_LONGEST_LINE = 2048  # bytes; the system writes lines up to 4096 bytes to a pipe in one piece

# Lines on standard input: `+number name` when a file is opened, `-number` when it is closed, `.` at the end.
_COMPANION = """
import signal, sys
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, signal.SIG_IGN)
files, ended = {}, False
for line in sys.stdin.buffer:
    number, _, name = line[1:].rstrip(b"\\n").partition(b" ")
    if line[:1] == b"+":
        files[number] = name
    elif line[:1] == b"-":
        files.pop(number, None)
    else:
        ended = True
if files and not ended:
    names = b", ".join(files.values())
    sys.stderr.buffer.write(b"error: the process crashed or was killed while it was reading " + names)
    sys.stderr.buffer.write(b". If that happens again, move the file elsewhere or convert it\\n")
"""


class CrashWatch:
    """Companion process that names the files that are being read if this process is killed.

    After a crash in native code, the process itself cannot report anything. Threads may share a watch. The
    companion is started with the first file; it ends when this process does.
    """

    def __init__(self) -> None:
        self._companion: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def begin(self, number: int, name: str) -> None:
        """Record that a file is being read, by number and name."""
        self._send(f"+{number} {plain(name)}")

    def end(self, number: int) -> None:
        """Record that a file is no longer being read."""
        self._send(f"-{number}")

    def close(self) -> None:
        """End the companion without a report."""
        if self._companion is not None:
            self._send(".")
            try:
                self._companion.communicate(timeout=_JOIN)
            except subprocess.TimeoutExpired:  # the companion is suspended
                self._companion.kill()
                self._companion.wait()

    def __enter__(self) -> CrashWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")[:_LONGEST_LINE] + b"\n"
        with self._lock:
            if self._companion is None:
                command = [sys.executable, "-I", "-S", "-c", _COMPANION]
                self._companion = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert self._companion.stdin is not None
            try:
                os.write(self._companion.stdin.fileno(), data)
            except (OSError, ValueError):  # the companion was killed or closed; the run does not need it
                pass
