"""Evaluation on a Ray cluster: the samples are split into parts, which worker processes evaluate in parallel."""

from __future__ import annotations

import functools
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import eval_loader, views_of_records
from slowfast.datasets.types import Failure, FailureLedger, Record
from slowfast.engine.evaluate import EvaluationTime, Process, evaluate
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import network_to_test
from slowfast.errors import ConfigError
from slowfast.models.protocol import LoadedWeights, Network
from slowfast.utils.distributed import World, init_distributed
from slowfast.utils.files import atomic_path
from slowfast.utils.logging import get_logger
from slowfast.utils.ray_cluster import RAY, RayCluster
from slowfast.utils.screen import Progress

PARTS = "parts"  # folder in OUTPUT_DIR with the results of finished parts
_PART = 64  # most samples of a part

# Makes a module of the config and the network, such as one that returns features: a function that Ray can send by name.
Wrap = Callable[[ConfigNode, Network], nn.Module]
Counters = dict[str, list[int]]


@runtime_checkable
class CountingModule(Protocol):
    """Module that counts something besides its outputs, such as the multiply-adds of event-driven inference."""

    def take_counters(self) -> Counters:
        """Return the counters, by name, and reset them."""


@dataclass(frozen=True)
class PartResult:
    """Result of a part.

    Attributes:
        outputs: Outputs of the views of each sample, float32 (V, K); None for an unreadable one.
        failures: Samples that could not be read.
        clips: Number of clips.
        counters: Those of a `CountingModule`.
    """

    outputs: list[torch.Tensor | None]
    failures: list[Failure]
    clips: int
    counters: Counters


def on_cluster(cfg: ConfigNode, world: World) -> bool:
    """Return whether samples are evaluated on a Ray cluster.

    Raises:
        ConfigError: If this is one of several processes.
    """
    if cfg.ENGINE != RAY:
        return False
    if world.size > 1:
        raise ConfigError("ENGINE ray starts processes itself. Start the command without torchrun, or set ENGINE local")
    return True


def evaluate_on_cluster(
    cfg: ConfigNode,
    split: str,
    records: Sequence[Record],
    loaded: LoadedWeights | None,
    process: Process,
    ledger: FailureLedger,
    progress: Progress,
    wrap: Wrap | None = None,
    count: Callable[[Counters], None] = lambda counters: None,
) -> EvaluationTime:
    """Evaluate all views of samples as :func:`~slowfast.engine.evaluate.evaluate` does, on the nodes of a cluster.

    Results of finished parts are stored in OUTPUT_DIR, so that an interrupted run resumes with the others.

    Args:
        cfg: Config of the run.
        split: Split whose dataset reads the samples.
        records: The samples.
        loaded: Weights of the model.
        process: Called with each sample and its outputs, in order.
        ledger: Collects the failures.
        progress: Progress display.
        wrap: Makes the module to run; None for the network itself.
        count: Called with the counters of each part, in order.

    Raises:
        UserError: If there is no cluster, see `RayCluster`.
    """
    start, pace = time.perf_counter(), EvaluationTime()
    folder = Path(cfg.OUTPUT_DIR) / PARTS
    with RayCluster.connect() as cluster:
        gpus = int(cfg.NUM_GPUS > 0)
        parts = split_records(cfg, records, cluster.slots(1, gpus))
        files = [folder / f"{name}.pt" for name in _digests(cfg, split, loaded, wrap, parts)]
        finished = {number: found for number, file in enumerate(files) if (found := _read(file)) is not None}
        if finished:
            get_logger().info(f"Resuming: an interrupted run has evaluated {len(finished)} of {len(parts)} parts")
        missing = [number for number in range(len(parts)) if number not in finished]
        work = functools.partial(evaluate_part, cfg, split, wrap)
        following = 0
        for position, result in cluster.map(work, [parts[number] for number in missing], gpus=gpus):
            finished[missing[position]] = result
            _write(result, files[missing[position]])
            pace.clips += result.clips
            following = _deliver(parts, finished, following, process, ledger, progress, count)
        _deliver(parts, finished, following, process, ledger, progress, count)
    shutil.rmtree(folder, ignore_errors=True)
    pace.compute = time.perf_counter() - start
    return pace


def split_records(cfg: ConfigNode, records: Sequence[Record], slots: int) -> list[list[Record]]:
    """Return parts of the samples, in order: several for each process, with whole batches."""
    views = cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS
    # Parts consist of whole batches, so that results are bit-identical to those of one process.
    whole = cfg.TEST.BATCH_SIZE // math.gcd(cfg.TEST.BATCH_SIZE, views)
    size = min(max(len(records) // (4 * slots), 1), _PART)
    size = -(-size // whole) * whole
    return [list(records[start : start + size]) for start in range(0, len(records), size)]


def evaluate_part(cfg: ConfigNode, split: str, wrap: Wrap | None, records: Sequence[Record]) -> PartResult:
    """Evaluate some samples in this process, which keeps the model for the next ones."""
    world = init_distributed(cfg.NUM_GPUS)
    model = model_of_process(cfg, world.device, wrap)
    ledger = FailureLedger(len(records))
    outputs: list[torch.Tensor | None] = []
    progress = Progress("part", len(records), "files", shown=False, every=1)
    forward = ClipForward.from_config(cfg, world.device, split)
    loader = eval_loader(cfg, world, views_of_records(cfg, split, records, all_views=True))
    _take_counters(model)  # of a part that failed
    try:
        with loader:
            pace = evaluate(
                model, loader, forward, lambda _, found: outputs.append(found), cfg.TEST.BATCH_SIZE, ledger, progress
            )
    finally:
        progress.close()
    return PartResult(outputs, ledger.all, pace.clips, _take_counters(model))


def _take_counters(model: nn.Module) -> Counters:
    return model.take_counters() if isinstance(model, CountingModule) else {}


_models: dict[tuple[str, Any], nn.Module] = {}  # cache of the last model of this process


def model_of_process(cfg: ConfigNode, device: torch.device, wrap: Wrap | None = None) -> nn.Module:
    """Return the model to test, which this process keeps for its next part."""
    key = (cfg.dump(), wrap)
    if key not in _models:
        _models.clear()
        network = network_to_test(cfg, device)
        _models[key] = network if wrap is None else wrap(cfg, network)
    return _models[key]


def _deliver(
    parts: Sequence[Sequence[Record]],
    finished: dict[int, PartResult],
    following: int,
    process: Process,
    ledger: FailureLedger,
    progress: Progress,
    count: Callable[[Counters], None],
) -> int:
    """Pass on the results of the parts that are next in order; return the number of the part after them."""
    while following in finished:
        result = finished.pop(following)
        ledger.add(result.failures)
        count(result.counters)
        for record, outputs in zip(parts[following], result.outputs, strict=True):
            process(record, outputs)
            progress.advance()
        following += 1
    return following


def _digests(
    cfg: ConfigNode, split: str, loaded: LoadedWeights | None, wrap: Wrap | None, parts: Sequence[Sequence[Record]]
) -> list[str]:
    """Return names for the results of parts, which depend on everything that these depend on."""
    module = "" if wrap is None else f"{wrap.__module__}.{wrap.__qualname__}"
    return digests_of_parts(cfg, loaded, (f"{split}\n{module}\n{part}" for part in parts))


def digests_of_parts(cfg: ConfigNode, loaded: LoadedWeights | None, parts: Iterable[str]) -> list[str]:
    """Return names for the results of parts.

    Args:
        cfg: Config of the run.
        loaded: Weights of the model; None if they are random.
        parts: Description of each part.
    """
    weights = "" if loaded is None else f"{loaded}\n{file_state(Path(loaded.path))}"
    common = f"{cfg.dump()}\n{weights}\n"
    texts = (f"{common}{part}".encode("utf-8", "surrogateescape") for part in parts)
    return [hashlib.sha256(text).hexdigest()[:32] for text in texts]


def file_state(file: Path) -> tuple[int, int] | None:
    """Return the size and the time of the last change of a file; None if it does not exist."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _write(result: PartResult, file: Path) -> None:
    with atomic_path(file, setting="OUTPUT_DIR") as part:
        failures = [asdict(failure) for failure in result.failures]
        torch.save({**vars(result), "failures": failures}, part)


def _read(file: Path) -> PartResult | None:
    """Return the results of a part; None if there are none or they cannot be read."""
    try:
        found = torch.load(file, weights_only=True)
        return PartResult(**{**found, "failures": [Failure(**failure) for failure in found["failures"]]})
    except FileNotFoundError:
        return None
    except Exception as error:  # of a damaged file
        get_logger().warning(f"{file} cannot be read ({type(error).__name__}); evaluating the part again")
        return None
