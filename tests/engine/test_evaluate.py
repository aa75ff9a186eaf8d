"""Evaluation loop: every view once for any batch size; unreadable videos stay without outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from slowfast.datasets.types import EvalVideo, Failure, FailureLedger, Record
from slowfast.engine.evaluate import Ensemble, evaluate
from slowfast.engine.forward import ClipForward
from slowfast.engine.tasks.classification import ClassificationEvaluator
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World
from slowfast.utils.screen import Progress

SIZE, CLASSES = 4, 3
FORWARD = ClipForward(torch.device("cpu"), (0.45, 0.4, 0.35), (0.2, 0.25, 0.3), False, None)


class Linear(nn.Module):
    """Logits as a linear function of each clip, counting the clips it saw."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3 * frames * SIZE * SIZE, CLASSES)
        self.seen: list[int] = []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(clips))
        return self.head(clips.flatten(1))


def make_video(index: int, views: int = 2, broken: bool = False) -> EvalVideo:
    generator = torch.Generator().manual_seed(index)
    record = Record(index, None, f"{index}.mp4", index % CLASSES)  # type: ignore[arg-type]
    if broken:
        return EvalVideo(record, None, torch.empty(0, 0, dtype=torch.long), [], 0, [Failure(index, record.name, "why")])
    frames = torch.randint(0, 256, (5, SIZE + index, SIZE + 3, 3), dtype=torch.uint8, generator=generator)
    rows = torch.randint(0, 5, (views, 2), generator=generator)
    return EvalVideo(record, frames, rows, [(0, 0), (index, 1), (0, 3)], SIZE)


def one_by_one(model: Linear, video: EvalVideo) -> torch.Tensor:
    """The slow, plain way: each clip cut out, normalized and computed alone."""
    logits = []
    for rows in video.frame_index:
        for top, left in video.corners:
            clip = torch.stack([video.frames[row, top : top + SIZE, left : left + SIZE] for row in rows]).double() / 255
            clip = (clip - torch.tensor(FORWARD.mean)) / torch.tensor(FORWARD.std)
            logits.append(model.head(clip.permute(3, 0, 1, 2).float().flatten()))
    return torch.stack(logits).mean(0).softmax(0)


def run(videos: list[EvalVideo], batch_clips: int) -> tuple[Linear, ClassificationEvaluator, FailureLedger]:
    model = Linear(frames=2)
    ledger = FailureLedger(len(videos))
    progress = Progress("test", len(videos), "videos", shown=False, every=1)
    evaluator = ClassificationEvaluator(World(), CLASSES, Ensemble(), keep_scores=True)
    pace = evaluate(model, iter(videos), FORWARD, evaluator.process, batch_clips, ledger, progress)
    evaluator.evaluate()
    assert pace.clips == sum(model.seen) and progress.done == len(videos)
    return model, evaluator, ledger


@pytest.mark.parametrize(
    ("method", "join"), [("sum", lambda views: views.mean(0)), ("max", lambda views: views.amax(0))]
)
def test_joined_logits_are_kept_only_if_asked_for(method: str, join: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model, videos = Linear(frames=2), [make_video(0), make_video(1, broken=True), make_video(2, views=1)]
    ledger, progress = FailureLedger(3), Progress("test", 3, "videos", shown=False, every=1)
    ensemble = Ensemble(method, "probabilities")
    evaluator = ClassificationEvaluator(World(), CLASSES, ensemble, keep_logits=True)
    evaluate(model, iter(videos), FORWARD, evaluator.process, 4, ledger, progress)
    evaluator.evaluate()
    [logits] = list(evaluator.logits.blocks())
    assert logits.shape == (3, CLASSES) and logits.dtype == np.float32 and np.isnan(logits[1]).all()
    for video, row in ((videos[0], logits[0]), (videos[2], logits[2])):
        clips = torch.stack(list(video.clips(torch.device("cpu"))))
        torch.testing.assert_close(torch.from_numpy(row), join(model(FORWARD.prepare(clips))).detach())
    plain = ClassificationEvaluator(World(), CLASSES, ensemble)
    evaluate(model, iter(videos), FORWARD, plain.process, 4, FailureLedger(3), progress)
    plain.evaluate()
    assert len(plain.predictions) == 3 and len(plain.logits) == len(plain.scores) == 0


@pytest.mark.parametrize("batch_clips", [1, 4, 5, 7, 1000])
def test_scores_do_not_depend_on_the_batch(batch_clips: int) -> None:
    videos = [
        make_video(0),
        make_video(1, views=1),
        make_video(2, broken=True),
        make_video(3),
        make_video(4, broken=True),
    ]
    model, evaluator, ledger = run(videos, batch_clips)
    assert [result.index for result in evaluator.predictions] == [0, 1, 2, 3, 4]
    assert max(model.seen) <= batch_clips and sum(model.seen) == 6 + 3 + 6
    [scores] = list(evaluator.scores.blocks())
    readable = [video for video in videos if video.frames is not None]
    for video, row in zip(readable, scores, strict=True):
        torch.testing.assert_close(torch.from_numpy(row), one_by_one(model, video), rtol=1e-5, atol=1e-6)
    for video, result in zip(videos, evaluator.predictions, strict=True):
        assert len(result.label_scores) == len(result.views[:1]) == (video.frames is not None)
    assert [failure.index for failure in ledger.lost] == [2, 4]


def test_no_videos() -> None:
    _, evaluator, _ = run([], 4)
    assert evaluator.predictions == []


def test_only_broken_videos() -> None:
    _, evaluator, ledger = run([make_video(index, broken=True) for index in range(3)], 4)
    assert [result.best for result in evaluator.predictions] == [()] * 3 and len(ledger.lost) == 3


def test_the_first_batch_is_shown_once_as_the_network_gets_it() -> None:
    videos = [make_video(0, broken=True), make_video(1), make_video(2)]
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    progress = Progress("test", len(videos), "videos", shown=False, every=1)
    model = Linear(frames=2)
    given: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    ledger = FailureLedger(len(videos))
    process = ClassificationEvaluator(World(), CLASSES, Ensemble()).process
    evaluate(model, iter(videos), FORWARD, process, 8, ledger, progress, lambda *batch: shown.append(batch))
    assert len(shown) == 1 and torch.equal(shown[0][0], given[0])
    assert shown[0][1].tolist() == [1] * 6 + [2] * 2


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("method", ["sum", "max"])
@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_joined_views_match_numpy(method: str, on: str) -> None:
    views = np.random.default_rng(0).normal(size=(12, 7)) * 4
    join = np.mean if method == "sum" else np.max
    expected = softmax(join(views, axis=0)) if on == "logits" else join(softmax(views), axis=0)
    np.testing.assert_allclose(Ensemble(method, on)(torch.from_numpy(views)), expected, rtol=1e-12)


def test_a_joined_single_view_is_its_softmax() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    for method in ("sum", "max"):
        torch.testing.assert_close(Ensemble(method)(logits), logits[0].double().softmax(0))


def test_unknown_ways_to_join_views() -> None:
    with pytest.raises(ConfigError, match="DATA.ENSEMBLE_METHOD: unknown value 'mean'. Choices: max, sum"):
        Ensemble("mean")
    with pytest.raises(ConfigError, match="TEST.ENSEMBLE_ON: unknown value 'scores'. Choices: logits"):
        Ensemble("sum", "scores")
