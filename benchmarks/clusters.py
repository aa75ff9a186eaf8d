"""Benchmark of distributed work against that of one machine: two nodes, a Ray cluster, shards and an object store.

python benchmarks/clusters.py nodes        # training: one process, two processes, two nodes
python benchmarks/clusters.py ray_test     # a test: this machine, two Ray nodes
python benchmarks/clusters.py ray_prepare  # slowfast prepare: this machine, two Ray nodes
python benchmarks/clusters.py shards       # reading: files, shards, S3 (moto's server) without and with its cache

The nodes share the cores of this machine, so the results show what distribution costs, not what it gains. Needs the
extras `ray`, `s3` and `dev`; `nodes` needs root for its network namespaces. `--data FOLDER` keeps the rendered clips.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tabulate import tabulate

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.cli.setup import load_config
from slowfast.datasets.build import eval_dataset
from slowfast.prepare.shards import write_shards
from tests.two_nodes import two_nodes

CLIPS = DemoSettings(train=32, val=8, test=48, size=128, frames=64)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
RUNS = 3
MEMORY = 100 * 2**20  # bytes, of a Ray node's objects
Row = list[str]


def settings(data: Path | str, output: Path) -> list[str]:
    """Return overrides of a small MorphMLP (2.7 M parameters) on clips of 8 frames of 64 x 64 pixels."""
    values: dict[str, object] = {
        "DATA.PATH_TO_DATA_DIR": data,
        "DATA.PATH_PREFIX": data,
        "DATA.PATH_LABEL_SEPARATOR": " ",
        "OUTPUT_DIR": output,
        "DATA.NUM_FRAMES": 8,
        "DATA.SAMPLING_RATE": 4,
        "DATA.TRAIN_CROP_SIZE": 64,
        "DATA.TEST_CROP_SIZE": 64,
        "DATA.TRAIN_JITTER_SCALES": "[64,80]",
        "MODEL.NUM_CLASSES": 8,
        "MORPH.LAYERS": "[1,1,2,1]",
        "MORPH.EMBED_DIMS": "[64,128,192,384]",
        "MORPH.SEGMENT_DIM": "[8,4,2,1]",
        "MORPH.PRETRAIN_PATH": "",
        "NUM_GPUS": 0,
        "TRAIN.BATCH_SIZE": 8,
        "TEST.NUM_ENSEMBLE_VIEWS": 2,
        "TEST.NUM_SPATIAL_CROPS": 1,
        "TEST.BATCH_SIZE": 4,
        "SOLVER.MAX_EPOCH": 3,
        "SOLVER.WARMUP_EPOCHS": 0,
        "TRAIN.EVAL_PERIOD": 3,
        "TRAIN.CHECKPOINT_PERIOD": 3,
        "TEST.ENABLE": False,
        "DATA_LOADER.NUM_WORKERS": 0,
        "LOG_PERIOD": 1,
        "TENSORBOARD.ENABLE": False,
    }
    return [str(word) for pair in values.items() for word in pair]


def slowfast(words: Sequence[object], env: Mapping[str, str]) -> float:
    """Run a command to its end; return its seconds."""
    start = time.perf_counter()
    line = [sys.executable, "-m", "slowfast", *map(str, words)]
    done = subprocess.run(line, env={**os.environ, **env}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - start


# ---------------------------------------------------------------- two nodes
def measure_nodes(data: Path, work: Path) -> list[Row]:
    """Train with one process of two threads, two processes of one thread, and two nodes of such a process each."""
    rows = []
    train = ["train", "--cfg", "K400/K400_MLP_S16x4"]
    for name, extra, env in (
        ("one process, 2 threads", [], {**ONE_THREAD, "OMP_NUM_THREADS": "2"}),
        ("two processes", ["--processes", "2"], ONE_THREAD),
    ):
        output = work / name.replace(" ", "_")
        seconds = slowfast([*train, *extra, *settings(data, output)], env)
        rows.append([f"training, {name}", *_steps(output), f"{seconds:.1f} s"])
        print(rows[-1], file=sys.stderr)
    output, log = work / "nodes", work / "log"
    with two_nodes(work) as nodes:
        start = time.perf_counter()
        runs = [node.train(["TRAIN.ENABLE", True, *settings(data, output)], log) for node in nodes]
        ended = [run.wait() for run in runs]
        if any(ended):
            raise SystemExit(log.read_text())
        rows.append(["training, two nodes", *_steps(output), f"{time.perf_counter() - start:.1f} s"])
    return rows


def _steps(output: Path) -> Row:
    """Return the median time of a step in milliseconds, without those of the first epoch."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    found = [one for one in lines if one.get("compute_s") is not None and one.get("epoch", 2) > 1]
    return [f"{1e3 * median(one['data_s'] + one['compute_s'] for one in found):.0f} ms/step"]


# ---------------------------------------------------------------- Ray
def measure_ray_test(data: Path, work: Path) -> list[Row]:
    """Test all test clips in a process of this machine with a worker, and on two Ray nodes of a CPU each."""
    rows = []
    with ray_nodes() as address:
        for engine, where in (("local", "this machine"), ("ray", "two Ray nodes")):
            output = work / engine
            words = ["test", "--cfg", "K400/K400_MLP_S16x4", "--engine", engine, *settings(data, output)]
            env = {**ONE_THREAD, "RAY_ADDRESS": address}
            seconds = slowfast([*words, "TEST.ENABLE", True, "DATA_LOADER.NUM_WORKERS", 1], env)
            found = json.loads((output / "test_results.json").read_text())
            rows.append([f"test of {found['videos']} videos, {where}", f"{found['seconds']:.1f} s", f"{seconds:.1f} s"])
    return rows


def measure_ray_preparation(data: Path, work: Path) -> list[Row]:
    """Prepare all clips with two workers of this machine, and on two Ray nodes of a CPU each."""
    rows = []
    with ray_nodes() as address:
        for engine, where, options in (("local", "two workers", ["--workers", 2]), ("ray", "two Ray nodes", [])):
            target = work / engine
            words = ["prepare", data / "videos", "--out", target, "--engine", engine, *options]
            seconds = slowfast(words, {**ONE_THREAD, "RAY_ADDRESS": address})
            rows.append([f"preparing {len(list(target.rglob('*.mp4')))} videos, {where}", f"{seconds:.1f} s"])
    return rows


@contextmanager
def ray_nodes() -> Iterator[str]:
    """Start a Ray cluster of two nodes; yield its address."""
    from ray.cluster_utils import Cluster

    os.environ.update(ONE_THREAD)  # of its worker processes
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        yield cluster.address
    finally:
        cluster.shutdown()


# ---------------------------------------------------------------- shards
def measure_shards(data: Path, work: Path) -> list[Row]:
    """Read the views of all test clips with one process; sources take turns."""
    shards = work / "shards"
    write_shards(data, shards, [data / "test.csv"], " ", 64 * 2**20)
    with s3_server(work) as client:
        client.create_bucket(Bucket="clips")
        for path in (*shards.iterdir(), data / "categories.txt"):
            client.put_object(Bucket="clips", Key=path.name, Body=path.read_bytes())
        places: dict[str, Path | str] = {
            "files": data,
            "shards": shards,
            "shards in S3": "s3://clips",
            "shards in S3, cached": "s3://clips",
        }
        times: dict[str, list[float]] = {name: [] for name in places}
        for run in range(RUNS):
            for name, place in places.items():
                if name == "shards in S3":
                    os.environ["XDG_CACHE_HOME"] = str(work / f"cache_{run}")
                times[name].append(_read(place, work))
    middle = {name: median(found) / CLIPS.test for name, found in times.items()}
    return [
        [f"reading {CLIPS.test} videos, {name}", f"{1e3 * one:.1f} ms/video", f"{one / middle['files']:.2f}"]
        for name, one in middle.items()
    ]


def _read(place: Path | str, work: Path) -> float:
    """Return the seconds to read the views of all test clips."""
    cfg = load_config("K400/K400_MLP_S16x4", settings(place, work / "out"))
    dataset = eval_dataset(cfg, "test")
    start = time.perf_counter()
    for position in range(len(dataset.records)):
        if dataset[position].failures:
            raise SystemExit(dataset[position].failures[0].reason)
    return time.perf_counter() - start


@contextmanager
def s3_server(work: Path) -> Iterator[Any]:
    """Start moto's S3 server and use it in this process; yield a client."""
    import boto3

    port = "5055"
    url = f"http://127.0.0.1:{port}"
    with (work / "moto.log").open("w") as log:
        line = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", port]
        process = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit((work / "moto.log").read_text())
            time.sleep(0.1)
        names = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
        os.environ.update({**names, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"})
        yield boto3.client("s3")
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


PARTS: dict[str, tuple[Callable[[Path, Path], list[Row]], Row]] = {
    "nodes": (measure_nodes, ["", "median of the steps after epoch 1", "whole command"]),
    "ray_test": (measure_ray_test, ["", "evaluation", "whole command"]),
    "ray_prepare": (measure_ray_preparation, ["", "whole command"]),
    "shards": (measure_shards, ["", "time", "relative to files"]),
}


def main() -> None:
    """Measure a part and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, help="folder of the rendered clips, made if it does not exist")
    chosen = parser.parse_args()
    measure, headers = PARTS[chosen.part]
    with tempfile.TemporaryDirectory() as folder:
        data = chosen.data or Path(folder, "clips")
        if not data.exists():
            build(data, CLIPS, workers=2)
        print(tabulate(measure(data, Path(folder)), headers, disable_numparse=True))


if __name__ == "__main__":
    main()
