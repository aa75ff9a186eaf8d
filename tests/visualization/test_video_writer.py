"""Writer of annotated videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from slowfast.visualization.video_writer import VideoWriter
from tests.video_files import picture


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    """Also after other videos, whose freed memory the encoder gets."""
    files: dict[int, set[bytes]] = {192: set(), 256: set()}
    for number in range(8):
        path = tmp_path / f"{number}.mp4"
        side = 256 if number % 2 else 192
        with VideoWriter(path, Fraction(25), Fraction(1, 25)) as writer:
            for tick in range(12):
                writer.write(picture(tick, side, side), tick)
        files[side].add(path.read_bytes())
    assert [len(contents) for contents in files.values()] == [1, 1]
