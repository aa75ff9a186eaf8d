"""Writing of event recordings as .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.sample import EventColumns
from slowfast.utils.files import atomic_path


def save_events(file: Path, events: EventColumns) -> None:
    """Write x, y (uint16), t (int64, microseconds) and p (uint8) to an uncompressed .npz file.

    The file appears once it is complete; its folder is created if necessary.

    Raises:
        OSError: If the file cannot be written.
    """
    x, y = events.x.astype(np.uint16), events.y.astype(np.uint16)
    with atomic_path(file) as part, part.open("wb") as opened:
        np.savez(opened, x=x, y=y, t=np.rint(events.t).astype(np.int64), p=events.p.astype(np.uint8))
