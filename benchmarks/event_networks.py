"""Benchmarks of Event2Vec against its published layout: neighbors gathered one by one, nn.TransformerEncoder.

Notation: B recordings per batch, L events per sample.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure import Measurement, time_interleaved
from slowfast.models.event2vec import Event2Vec
from slowfast.models.event_embedding import (
    EventEmbedding,
    EventTable,
    Grid,
    Naive,
    Naive2d,
    Neighbor1dNaive,
    Neighbor1dNaive2d,
    NeighborNaive,
    build_embedding,
)
from slowfast.models.protocol import Events

# Event2Vec as published for ASL-DVS.
BATCH, EVENTS, GRID, WIDTH, SENSOR, CLASSES = 128, 255, Grid(2, 36, 48), 256, (180, 240), 24
EMBEDDINGS = ("neighbor1d-naive-2-1", "neighbor1d-naive2d-2-1", "neighbor2d-naive-2-1")
GATHERED, SUMMED = "gathering each neighbor", "neighbors summed in the table"
INFERENCE, TRAINING = (1, 16, 128), (1, 32, 128)  # recordings per batch
PUBLISHED, HERE = "published layout", "here"


# ------------------------------------------------------------------ embeddings
def plain_embedding(
    embedding: EventEmbedding, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Compute embedding(p, y, x, valid) by gathering each neighbor: (B, L) each -> (B, L, d)."""
    h, w = embedding.grid.height, embedding.grid.width

    def rows(table: EventTable, at: torch.Tensor) -> torch.Tensor:
        return F.embedding(torch.where(valid, at + 1, 0), table.weight, padding_idx=0)

    if isinstance(embedding, Naive):
        return rows(embedding, (p * h + y) * w + x)
    if isinstance(embedding, Naive2d):
        return torch.cat((rows(embedding.embed_y, p * h + y), rows(embedding.embed_x, p * w + x)), -1)
    if isinstance(embedding, Neighbor1dNaive2d):
        steps = _steps(embedding.reach, embedding.dilation)
        lines = [rows(embedding.embed.embed_y, p * h + (y + step).clamp(0, h - 1)) for step in steps]
        columns = [rows(embedding.embed.embed_x, p * w + (x + step).clamp(0, w - 1)) for step in steps]
        return torch.cat((_weighted(lines, embedding.c_y), _weighted(columns, embedding.c_x)), -1)
    assert isinstance(embedding, NeighborNaive)
    steps = _steps(embedding.reach, embedding.dilation)
    if isinstance(embedding, Neighbor1dNaive):
        places = [(y + step).clamp(0, h - 1) * w + (x + step).clamp(0, w - 1) for step in steps]
    else:
        places = [(y + dy).clamp(0, h - 1) + (x + dx).clamp(0, w - 1) for dy in steps for dx in steps]
    return _weighted([rows(embedding.embed, p * (h * w) + place) for place in places], embedding.c)


def _steps(reach: int, dilation: int) -> list[int]:
    return [i * dilation for i in range(-reach, reach + 1)]


def _weighted(rows: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    total = weights[0] * rows[0]  # (1, 1, 1) x (B, L, d)
    for weight, row in zip(weights[1:], rows[1:], strict=True):
        total = total + weight * row
    return total


def measure_embeddings(device: torch.device, runs: int) -> list[Measurement]:
    """Measure embeddings, forward and forward + backward, for a batch and a single recording.

    Args:
        device: Device to run on.
        runs: Number of timed runs.
    """
    measurements = []
    for name, batch, training in itertools.product(EMBEDDINGS, (BATCH, 1), (False, True)):
        timings = time_interleaved(
            _embedding_cases(build_embedding(name, GRID, WIDTH).to(device), batch, training, device), runs, device
        )
        group = f"events, {name}, forward{' + backward' if training else ''}{', one recording' if batch == 1 else ''}"
        measurements += [
            Measurement(group, case, 1e3 * timings.median(case), "ms", runs) for case in (GATHERED, SUMMED)
        ]
        measurements.append(Measurement(group, "speed-up", timings.ratio(GATHERED, SUMMED), "x", runs))
    return measurements


def _embedding_cases(
    embedding: EventEmbedding, batch: int, training: bool, device: torch.device
) -> dict[str, Callable[[], object]]:
    rng = torch.Generator().manual_seed(0)
    limits = (GRID.polarities, GRID.height, GRID.width)
    p, y, x = (torch.randint(limit, (batch, EVENTS), generator=rng).to(device) for limit in limits)
    valid = torch.ones_like(p, dtype=torch.bool)
    wanted = torch.randn(batch, EVENTS, WIDTH, generator=rng).to(device)

    def run(embed: Callable[..., torch.Tensor]) -> None:
        with torch.set_grad_enabled(training):
            tokens = embed(p, y, x, valid)
        if training:
            embedding.zero_grad()
            tokens.backward(wanted)

    return {GATHERED: partial(run, partial(plain_embedding, embedding)), SUMMED: partial(run, embedding)}


# ------------------------------------------------------------------ network
class PublishedLayout(nn.Module):
    """Event2Vec for ASL-DVS as its authors' code computes it, with a copy of the weights of a network."""

    def __init__(self, network: Event2Vec) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 16, 512, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(256), enable_nested_tensor=False)
        self.encoder.load_state_dict(network.classifier.encoder.state_dict())
        self.network = copy.deepcopy(network)
        self.network.classifier.encoder.layers = nn.ModuleList()

    def forward(self, events: Events) -> torch.Tensor:
        """Return the logits of events."""
        network, valid = self.network, events["valid"]
        tokens = plain_embedding(network.embed, *network._positions(events), valid) + events["t"][..., None]
        tokens = torch.cat((network.classifier.class_token.expand(len(tokens), -1, -1), tokens), 1)
        encoded = self.encoder(tokens, src_key_padding_mask=F.pad(~valid, (1, 0)))
        return network.classifier.head(encoded[:, 0])


def measure_event2vec(device: torch.device, runs: int) -> list[Measurement]:
    """Measure inference and training steps (forward, backward, AdamW), full recordings of 255 events.

    Args:
        device: Device to run on.
        runs: Number of timed runs.
    """
    torch.manual_seed(0)
    here = Event2Vec().to(device)
    networks = {PUBLISHED: PublishedLayout(here), HERE: here}
    measurements = []
    for training, sizes in ((False, INFERENCE), (True, TRAINING)):
        for batch in sizes:
            cases = {
                name: _case(network.train(training), batch, training, device) for name, network in networks.items()
            }
            timings = time_interleaved(cases, runs, device)
            group = f"events, Event2Vec {'training step' if training else 'inference'}, batch of {batch}"
            measurements += [Measurement(group, name, 1e3 * timings.median(name), "ms", runs) for name in cases]
            measurements.append(Measurement(group, "speed-up", timings.ratio(PUBLISHED, HERE), "x", runs))
    return measurements


def _case(network: nn.Module, batch: int, training: bool, device: torch.device) -> Callable[[], object]:
    rng = torch.Generator().manual_seed(0)
    limits = {"x": SENSOR[1], "y": SENSOR[0], "p": 2}
    events = {key: torch.randint(limit, (batch, EVENTS), generator=rng) for key, limit in limits.items()}
    events |= {"t": torch.rand(batch, EVENTS, generator=rng), "valid": torch.ones(batch, EVENTS, dtype=torch.bool)}
    events = {key: value.to(device) for key, value in events.items()}
    if not training:
        return partial(_infer, network, events)
    labels = torch.randint(CLASSES, (batch,), generator=rng).to(device)
    return partial(_step, network, events, labels, torch.optim.AdamW(network.parameters(), 1e-4))


@torch.inference_mode()
def _infer(network: nn.Module, events: Events) -> torch.Tensor:
    return network(events)


def _step(network: nn.Module, events: Events, labels: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    F.cross_entropy(network(events), labels).backward()
    optimizer.step()
