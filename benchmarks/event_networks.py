"""Benchmark of Event2Vec against its published layout: neighbors gathered one by one, nn.TransformerEncoder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.events import plain_embedding
from benchmarks.measure import Measurement, time_interleaved
from slowfast.models.event2vec import Event2Vec
from slowfast.models.protocol import Events

EVENTS, SENSOR, CLASSES = 255, (180, 240), 24
INFERENCE, TRAINING = (1, 16, 128), (1, 32, 128)  # recordings per batch
PUBLISHED, HERE = "published layout", "here"


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
