"""What is done already: one JSON line a finished video, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slowfast.prepare.collection import Job
from slowfast.runtime.unfinished import disk_error

MANIFEST = "prepared.jsonl"


@dataclass(frozen=True)
class Entry:
    """One finished video. Paths are relative to the two folders."""

    source: str
    target: str
    source_size: int  # bytes
    source_mtime_ns: int
    settings: str  # digest
    frames: int
    size: int  # bytes of the target
    damage: str | None


class Manifest:
    """The finished videos of a target folder; several runs may append to it at once."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / MANIFEST
        self._entries = {entry.source: entry for entry in self._read()}

    def _read(self) -> list[Entry]:
        """Entries in the order written. A line cut short by a kill is a video not done."""
        entries = []
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.exists() else ""
        for line in text.splitlines():
            try:
                entries.append(Entry(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return entries

    def done(self, job: Job, settings: str) -> Entry | None:
        """The entry of a video that is unchanged, and whose copy is there, made with these settings; else None."""
        entry = self._entries.get(job.name)
        if entry is None or (entry.settings, entry.target) != (settings, job.target_name):
            return None
        try:
            source, target = job.source.stat(), job.target.stat()
        except OSError:
            return None
        found = (source.st_size, source.st_mtime_ns, target.st_size)
        return entry if found == (entry.source_size, entry.source_mtime_ns, entry.size) else None

    def add(self, entry: Entry) -> None:
        """Append a finished video, in one write, on a line of its own. Raises DiskError where the disk is full."""
        try:
            with self._file.open("ab+") as file:
                size = file.seek(0, 2)
                file.seek(max(size - 1, 0))
                start = b"\n" if size and file.read(1) != b"\n" else b""  # after a line cut short
                file.write(start + json.dumps(asdict(entry)).encode() + b"\n")
        except OSError as error:
            raise disk_error(error, self._file) or error from error
