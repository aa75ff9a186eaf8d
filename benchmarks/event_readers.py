"""Benchmark of reading large event recordings: speed and peak memory, compared with other packages.

    python -m benchmarks.event_readers                       # this package
    python -m benchmarks.event_readers --peers .peers/bin/python   # and expelliarmus and faery of another environment

The recordings are written here, all with the same events. Each reader runs in a fresh process; the processes alternate.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from tabulate import tabulate

from benchmarks.measure import Measurement

EVENTS, SENSOR = 5_000_000, (720, 1280)
BLOCKS, WHOLE = "in blocks", "all events"
# What a fresh process does: import, note the memory, read once or several times, print seconds and MiB.
_HEAD = """
import sys, time
from pathlib import Path
path, runs = Path(sys.argv[1]), int(sys.argv[2])
{imports}
seconds = []
for _ in range(runs):
    start = time.perf_counter()
    count = {read}
    seconds.append(time.perf_counter() - start)
status = Path("/proc/self/status").read_text()
memory = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(count, sorted(seconds)[len(seconds) // 2], memory)
"""
_OURS = "from slowfast.datasets.dvs.formats import open_events, read_blocks, read_stream"
READERS = {
    BLOCKS: (_OURS, "sum(len(block.t) for block in read_blocks(open_events(path)))"),
    WHOLE: (_OURS, "len(read_stream(open_events(path)).t)"),
}
_ENCODINGS = "{'a.dat': 'dat', 'evt2.raw': 'evt2', 'evt3.raw': 'evt3'}[path.name]"
# Other packages, and the files that they read.
PEERS = {
    "expelliarmus": ("import expelliarmus", f"len(expelliarmus.Wizard(encoding={_ENCODINGS}).read(path))"),
    "faery": ("import faery", "len(faery.events_stream_from_file(path).to_array())"),
}
NOT_READ = {("expelliarmus", "a.aedat4")}


def write_recordings(folder: Path, count: int) -> list[Path]:
    """Write the same random events in four formats.

    Args:
        folder: Folder of the files.
        count: Number of events, a million per second.
    """
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, count, count))
    x, y, p = (rng.integers(0, limit, count) for limit in (SENSOR[1], SENSOR[0], 2))
    writers: dict[str, Callable[..., bytes]] = {
        "a.dat": _dat,
        "evt2.raw": _evt2,
        "evt3.raw": _evt3,
        "a.aedat4": _aedat4,
    }
    for name, write in writers.items():
        (folder / name).write_bytes(write(x, y, t, p))
    return [folder / name for name in writers]


def _dat(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> bytes:
    words = np.stack((t, x | y << 14 | p << 28), 1).astype("<u4")
    header = f"% Data file containing CD events\n% Version 2\n% Height {SENSOR[0]}\n% Width {SENSOR[1]}\n"
    return header.encode() + bytes([0x0C, 8]) + words.tobytes()


def _raw_header(version: int) -> bytes:
    return f"% evt {version}.0\n% format EVT{version};height={SENSOR[0]};width={SENSOR[1]}\n% end\n".encode()


def _evt2(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> bytes:
    high = t >> 6
    words = np.stack((8 << 28 | high, p << 28 | (t & 0x3F) << 22 | x << 11 | y), 1).astype("<u4")
    kept = np.ones_like(words, np.bool_)
    kept[:, 0] = np.diff(high, prepend=-1) != 0
    return _raw_header(2) + words[kept].tobytes()


def _evt3(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> bytes:
    high, low = t >> 12 & 0xFFF, t & 0xFFF
    words = np.stack((8 << 12 | high, 6 << 12 | low, y, 2 << 12 | p << 11 | x), 1).astype("<u2")
    kept = np.ones_like(words, np.bool_)
    kept[:, 0] = np.diff(high, prepend=-1) != 0
    kept[:, 1] = kept[:, 0] | (np.diff(low, prepend=-1) != 0)
    kept[:, 2] = np.diff(y, prepend=-1) != 0
    return _raw_header(3) + words[kept].tobytes()


def _aedat4(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> bytes:
    """Encode AEDAT 4.0 with LZ4, 4096 events per packet."""
    import lz4.frame

    events = np.zeros(len(t), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("pad", "V3")])
    for name, values in (("t", t), ("x", x), ("y", y), ("p", p)):
        events[name] = values
    sizes = "".join(f'<attr key="size{axis}" type="int">{SENSOR[place]}</attr>' for axis, place in (("X", 1), ("Y", 0)))
    info = (
        '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/"><node name="0" '
        'path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">LZ4</attr>'
        '<attr key="typeIdentifier" type="string">EVTS</attr><node name="info" '
        f'path="/mainloop/Recorder/outInfo/0/info/">{sizes}</node></node></node></dv>'
    ).encode()
    parts = []
    for first in range(0, len(t), 4096):
        part = events[first : first + 4096]
        # A FlatBuffer: offset of the table, identifier, offsets of fields, table, vector.
        content = struct.pack("<I4sHHHxxiI", 16, b"EVTS", 6, 8, 4, 8, 4) + struct.pack("<I", len(part)) + part.tobytes()
        body = lz4.frame.compress(struct.pack("<I", len(content)) + content)
        parts.append(struct.pack("<ii", 0, len(body)) + body)
    packets = b"".join(parts)
    fields = struct.pack("<HHHHHxx", 10, 20, 4, 8, 16)
    text = struct.pack("<I", len(info)) + info + b"\0"
    for end in (0, 14 + 4 + 8 + len(fields) + 20 + len(text) + len(packets)):
        table = struct.pack("<iiqI", len(fields), 1, end, 4)
        content = struct.pack("<I4s", 8 + len(fields), b"IOHE") + fields + table + text
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(content)) + content + packets


def read_once(python: str, imports: str, read: str, file: Path, runs: int) -> tuple[int, float, float]:
    """Read a file in a fresh process.

    Returns:
        The number of events, the median of the seconds, and the peak memory of the process in MiB.
    """
    code = _HEAD.format(imports=imports, read=read)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    line = [python, "-c", code, str(file), str(runs)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{file.name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    count, seconds, memory = done.stdout.split()
    return int(count), float(seconds), float(memory)


def measure_readers(folder: Path, runs: int) -> list[Measurement]:
    """Measure the readers of this package: speed, and peak memory of a fresh process."""
    measurements = []
    folder.mkdir(parents=True)
    for file in write_recordings(folder, EVENTS):
        group = f"events, reading {EVENTS / 1e6:.0f} million of {file.name}"
        for name, (imports, read) in READERS.items():
            count, seconds, memory = read_once(sys.executable, imports, read, file, runs)
            measurements.append(Measurement(group, f"{name}, speed", count / seconds / 1e6, "million/s", runs))
            measurements.append(Measurement(group, f"{name}, peak memory", memory, "MiB", 1))
    return measurements


def compare(files: list[Path], peers: str | None, runs: int, rounds: int) -> str:
    """Return a table of the events per second and the peak memory of each reader of each file."""
    readers = {f"slowfast, {name}": (sys.executable, *work) for name, work in READERS.items()}
    if peers:
        readers |= {name: (peers, *work) for name, work in PEERS.items()}
    found: dict[tuple[str, str], list[tuple[int, float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for file in files:
            for name, (python, imports, read) in readers.items():
                if (name, file.name) not in NOT_READ:
                    found[file.name, name].append(read_once(python, imports, read, file, runs))
    rows = []
    for (file_name, name), results in found.items():
        seconds, memory = median(result[1] for result in results), max(result[2] for result in results)
        rows.append((file_name, name, f"{results[0][0] / seconds / 1e6:.0f}", f"{memory:.0f}"))
    return tabulate(rows, ("file", "reader", "million events/s", "peak MiB"), tablefmt="github", disable_numparse=True)


def main() -> None:
    """Write the recordings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of an environment with expelliarmus and faery")
    parser.add_argument("--events", type=int, default=EVENTS, metavar="N", help="events (default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs per process (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes each (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder of the recordings, kept for the next time")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(folder.iterdir()) or write_recordings(folder, chosen.events)
        print(compare(files, chosen.peers, chosen.runs, chosen.rounds))


if __name__ == "__main__":
    main()
