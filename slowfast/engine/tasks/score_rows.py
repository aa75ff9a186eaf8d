"""Class scores of many samples in bounded memory.

N samples, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slowfast.utils.distributed import World
from slowfast.utils.files import disk_error

_IN_MEMORY = 64 * 2**20  # bytes kept in memory; beyond, rows are in a file
_BLOCK = 32 * 2**20  # bytes read at a time


class ScoreRows:
    """Rows of K float32 scores in memory, or in a temporary file without a name once they exceed 64 MiB.

    Args:
        num_classes: K.
        folder: Folder of the file, which takes 4 K bytes per sample; the system's folder of temporary files if it does
            not exist.
    """

    def __init__(self, num_classes: int, folder: Path | None = None) -> None:
        self.num_classes = num_classes
        self._folder = folder if folder is not None and folder.is_dir() else Path(tempfile.gettempdir())
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def block(self) -> int:
        """Number of rows to read at a time."""
        return max(_BLOCK // (4 * self.num_classes), 1)

    def append(self, rows: np.ndarray) -> None:
        """Add a row (K,) or several (N, K).

        Raises:
            DiskError: If the disk is full.
        """
        data = np.ascontiguousarray(rows, np.float32)
        try:
            self._file.seek(0, 2)
            self._file.write(data.tobytes())
        except OSError as error:
            raise disk_error(error, self._folder / "temporary file of scores", "OUTPUT_DIR") or error from error
        self._count += data.size // self.num_classes

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of ascending numbers, float32 (len(rows), K)."""
        found = np.empty((len(rows), self.num_classes), np.float32)
        stretches = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1)  # runs of consecutive rows
        for stretch in stretches if len(rows) else []:
            self._file.seek(int(rows[stretch[0]]) * 4 * self.num_classes)
            data = self._file.read(len(stretch) * 4 * self.num_classes)
            found[stretch] = np.frombuffer(data, np.float32).reshape(-1, self.num_classes)
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows, in blocks float32 (rows, K)."""
        for first in range(0, len(self), self.block):
            yield self.read(np.arange(first, min(first + self.block, len(self))))


def gather_rows(world: World, own: ScoreRows, indices: np.ndarray, every: np.ndarray, folder: Path | None) -> ScoreRows:
    """Merge the rows of all processes in one order; all processes must call it.

    Args:
        world: Processes of the run.
        own: Rows of this process.
        indices: Index of the sample of each row, int64 (len(own),).
        every: Indices of all samples in the order of the result, ascending, int64 (N,).
        folder: Folder of a temporary file; see `ScoreRows`.

    Returns:
        In the main process the rows of all samples, NaN for samples without a row; no rows in the others.
    """
    order = np.argsort(indices, kind="stable")
    if world.size == 1 and np.array_equal(indices, every):
        return own
    gathered = ScoreRows(own.num_classes, folder)
    for first in range(0, len(every), own.block):
        wanted = every[first : first + own.block]
        start, end = np.searchsorted(indices[order], [wanted[0], wanted[-1] + 1])
        rows = np.sort(order[start:end])
        parts = world.gather([(indices[rows], own.read(rows))])
        if world.is_main:
            block = np.full((len(wanted), own.num_classes), np.nan, np.float32)
            for found, values in parts:
                block[np.searchsorted(wanted, found)] = values
            gathered.append(block)
    return gathered
