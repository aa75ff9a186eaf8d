"""Servers and sources of live event streams, and the command that classifies them."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from event_files import SENSOR, event_settings
from raw_recordings import Event

from slowfast.cli import events_live
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.formats.base import EventBlock
from slowfast.datasets.index.samples import UNLABELED
from slowfast.datasets.types import Record
from slowfast.inference.event_sources import EventSource

EMPTY = str(ROOT / "tests" / "empty.yaml")
NAMES = ["left", "right", "<b>up</b>"]


def write_weights(path: Path) -> Path:
    """Write random weights with class names to a folder."""
    from slowfast.models import build_model  # builds only where a test needs it
    from tests.random_weights import randomized

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


def refused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def shown(capsys: pytest.CaptureFixture[str], pattern: str) -> str:
    """Wait until a pattern is shown, and return what matches."""
    text, until = "", time.monotonic() + 300
    while (found := re.search(pattern, text)) is None:
        assert time.monotonic() < until, text
        text += capsys.readouterr().out
        time.sleep(0.02)
    return found[0]
