"""Rows of the tables of docs/BENCHMARKS.md, by topic: which figures a cell shows.

The cell of a machine is the template of a row with names of figures in braces. The group of the figures is a regular
expression. Its capture group, if any, is the label of a row for each group that matches (`{}` in the label); values of
several groups with the same label are shown as a range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import OVER_DENSE, SHARE_OF_DENSE


@dataclass(frozen=True)
class Row:
    """Row of a table, or rows with the same template.

    Attributes:
        label: First cell; `{}` stands for what the capture group of `group` matches.
        group: Regular expression of the groups of figures.
        template: Text of a cell, with names of figures in braces.
    """

    label: str
    group: str
    template: str


@dataclass(frozen=True)
class Topic:
    """Table of the page.

    Attributes:
        heading: Heading of the first column.
        rows: Rows, in their order.
    """

    heading: str
    rows: Sequence[Row]


_PRECISIONS = ("float32", "bfloat16", "int8")
_SPEED_UPS = "{dense inference, float32} ms: " + ", ".join(f"{{{name}, {OVER_DENSE}}}x" for name in _PRECISIONS)
_SHARES = "{dense inference, float32} ms: " + ", ".join(f"{{{name}, {SHARE_OF_DENSE}}} %" for name in _PRECISIONS)
_LOADING = "{clips/s} clips/s"
_STAGES = ("opening and scanning", "decoding", "converting to RGB", "augmentation", "rest")
_STAGE_NAMES = "open and scan, decode, convert to RGB, augment, rest"
_STAGE_TIMES = ", ".join(f"{{{stage}}}" for stage in _STAGES) + " ms"
_SHARE = "share of the matrix multiplication rate"

TOPICS: dict[str, Topic] = {
    "event_driven": Topic(
        "changes between frames",
        (
            Row("none, frame by frame", "event-driven, nothing changes", _SHARES),
            *(
                Row(label, f"event-driven, {activity}", _SPEED_UPS)
                for label, activity in {
                    "1 % of the patches in one region, frame by frame": "1 % in one region, frame by frame",
                    "1 % of the patches, scattered, frame by frame": "1 % scattered, frame by frame",
                    "5 % in one region, 16 streams in a batch": "5 % in one region, 16 streams",
                    "5 % in one region, chunks of 16 frames": "5 % in one region, chunks of 16 frames",
                }.items()
            ),
            Row("every patch, frame by frame", "event-driven, every patch changes", _SHARES),
            Row("every patch, 16 streams in a batch", "event-driven, every patch changes, 16 streams", _SHARES),
            Row("every patch, chunks of 16 frames", "event-driven, every patch changes, chunks of 16 frames", _SHARES),
            Row("`{}`, chunks of 16 frames", r"event-driven, (\S+\.\w+), chunks of 16 frames", _SPEED_UPS),
        ),
    ),
    "dense": Topic(
        "dense inference in float32",
        (
            Row(
                "{}",
                r"event-driven, dense inference in float32, (\d+ at a time)",
                "{network} ms/frame by the network, {engine} ms by the event-driven engine: {speed-up}x",
            ),
        ),
    ),
    "cameras": Topic(
        "cameras, precision",
        (
            Row(
                "{}",
                r"(\d+ cameras, .*)",
                "{frames processed} frames/s, {frames dropped} % dropped, latency {latency p50}, {latency p99} ms, "
                "{CPU cores in use} cores, {MACs saved} % of the MACs saved",
            ),
        ),
    ),
    "load": Topic(
        "training clips, 16x4",
        (
            Row("files as given", "load, files as given", _LOADING),
            Row(f"files as given: {_STAGE_NAMES}", "load, files as given", _STAGE_TIMES),
            Row("prepared by `slowfast prepare`", "load, prepared files", _LOADING),
            Row(f"prepared: {_STAGE_NAMES}", "load, prepared files", _STAGE_TIMES),
            Row("prepared, in shards of `slowfast shards`", "load, prepared files in shards", _LOADING),
            Row("1080p, resized while decoding", "load, 1080p file", _LOADING),
            Row("1080p, decoded in full size", "load, 1080p file, not scaled while decoding", _LOADING),
        ),
    ),
    "test": Topic(
        "test video",
        (
            Row(
                "{} views",
                r"test, (\S+) views",
                "{all views} s; decoding it once and resizing {decoding once + resizing} s",
            ),
        ),
    ),
    "network": Topic(
        "MorphMLP-S 16x4, 2 clips",
        (
            Row("multiply-adds of a clip", "network", "{MACs} G"),
            Row("{}: forward pass of a clip", r"network, (\w+)", "{forward of 2 clips} s"),
            Row("bfloat16: speed-up over float32", "network, bfloat16", "{forward, speed-up over float32}x"),
            Row(
                "{}: matrix multiplication, 4096 x 4096",
                r"network, (\w+)",
                "{matrix multiplication, 4096 x 4096} GFLOP/s",
            ),
            Row("{}: share of that rate", r"network, (\w+)", f"{{forward, {_SHARE}}} %"),
            Row(
                "{}: training step; activation memory",
                r"network, (\w+)",
                "{training step} s; {training step, activation memory} MiB",
            ),
            Row(
                "{}: gradient checkpointing, relative time and memory",
                r"network, (\w+)",
                "{checkpointing, time of a training step}x; {checkpointing, activation memory} %",
            ),
        ),
    ),
    "networks": Topic(
        "config",
        (
            Row(
                "`{}`",
                r"networks, (\w+)",
                f"{{float32, forward}}/s ({{float32, {_SHARE}}} %), {{bfloat16, forward}}/s ({{bfloat16, {_SHARE}}} %)",
            ),
        ),
    ),
    "events": Topic(
        "event recordings",
        (
            Row(
                "Event2Vec's embeddings of 128 recordings: speed-up over gathering neighbors",
                r"events, neighbor.*(?<!, one recording)",
                "{speed-up}x",
            ),
            Row("the same for one recording", "events, neighbor.*, one recording", "{speed-up}x"),
            Row(
                "Event2Vec, {}",
                "events, Event2Vec (.*)",
                "{here} ms; published layout {published layout} ms: {speed-up}x",
            ),
            Row(
                "reading 255 of 5 million events, {}", r"events, 255 of 5 million, (\w+)", "{sample, file in memory} ms"
            ),
            Row(
                "whole recordings of 28000 events, {}, in memory",
                r"events, 100 recordings of 28000, (\w+)",
                "{recordings, all events} recordings/s",
            ),
            Row(
                "whole recordings of 28000 events, {}, on disk",
                r"events, 100 recordings of 28000, (\w+)",
                "{recordings, all events, files on disk} recordings/s",
            ),
            Row(
                "reading 5 million events of {}",
                r"events, reading 5 million of (.*)",
                "{in blocks, speed} million events/s, peak memory {in blocks, peak memory} MiB",
            ),
            Row(
                "classifying a live stream",
                "events, stream .*",
                "{events_per_second} events/s, {latency_ms} ms after the end of a window",
            ),
        ),
    ),
    "scale": Topic(
        "cost",
        (
            Row(
                "{}: reading, order of a balanced epoch, memory",
                "(index of .*)",
                "{reading} s, {order of a balanced epoch} s, {additional memory} MB",
            ),
            Row(
                "{}: counting and drawing, memory",
                "(confusion matrix, .*)",
                "{counting and drawing} s, {additional memory} MB",
            ),
            Row(
                "{}: collecting, average precision, memory",
                "(mAP, .*)",
                "{collecting} s, {average precision} s, {additional memory} MB",
            ),
            Row(
                "opening a 10 s video for training, and one of 10 minutes",
                "opening a video",
                "{as given} ms, {60 times as long} ms",
            ),
        ),
    ),
    "demos": Topic(
        "demo",
        (
            Row("`{}`", r"demo, (make [\w-]+)", "{time} s, top-1 {top-1} %"),
            Row("`make demo`, {}", r"demo, make demo, (.*)", "top-1 {top-1} %"),
            Row("`make demo-events`, {}", r"demo, make demo-events, (.*)", "top-1 {top-1} %"),
            Row("{}", r"demo, (Event2Vec .*)", "{time} s, top-1 {top-1} %"),
        ),
    ),
}
