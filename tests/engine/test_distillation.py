"""Distillation: teacher inputs, losses, one step against its formula, complete runs, and errors."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_net, tiny_settings

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.cli.validate_components import check_distillation
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.mixup import Mixup
from slowfast.datasets.types import TrainBatch
from slowfast.engine import checkpoints
from slowfast.engine.distillation import LOSSES, AllHeads, Distillation, Renormalize, check_teacher_weights
from slowfast.engine.forward import ClipForward, normalize
from slowfast.engine.optim import build_optimizer
from slowfast.engine.step import TrainStep
from slowfast.errors import CheckpointError, ConfigError, UserError
from slowfast.models import build_model
from slowfast.utils.distributed import World
from tests.random_weights import randomized

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
IMAGES = ["TRAIN.DATASET", "imagenet", "TEST.DATASET", "imagenet", "TEST.NUM_ENSEMBLE_VIEWS", 1]
IMAGES += ["TEST.NUM_SPATIAL_CROPS", 1, "DATA_LOADER.NUM_WORKERS", 0]
STUDENT = [*IMAGES, "MODEL.MODEL_NAME", "EAT", "EAT.PATCH_SIZE", 8, "EAT.LAYERS", 2, "EAT.EMBED_DIM", 16]
STUDENT += ["EAT.HEADS", 4, "EAT.DISTILLED", True, "EAT.DROP_DEPTH_RATE", 0.5]
STUDENT += ["MODEL.LOSS_FUNC", "soft_cross_entropy", "MIXUP.ENABLE", True]
TEACHER = ["MODEL.MODEL_NAME", "ConvMLP", "CONVMLP.LAYERS", [1, 1], "CONVMLP.EMBED_DIMS", [16, 16]]
TEACHER += ["CONVMLP.MLP_RATIOS", [2, 2], "CONVMLP.CONV_DIM", 8, "DATA.MEAN", [0.5, 0.4, 0.3], "DATA.STD", [0.3] * 3]
TEACHER += ["DATA.REVERSE_INPUT_CHANNEL", True, "DATA.TEST_CROP_SIZE", 64]


def config(data: Path, output: Path, *overrides: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(data, output), *overrides])
    return cfg


def teacher_files(folder: Path, *overrides: object) -> list[object]:
    """Write a teacher's config and random weights; the settings that name them."""
    cfg = config(folder, folder, *IMAGES, *TEACHER, *overrides)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.yaml").write_text(cfg.dump())
    torch.save({"model_state": randomized(build_model(cfg)).state_dict()}, folder / "teacher.pyth")
    files = ["DISTILL.TEACHER_CFG", folder / "teacher.yaml", "DISTILL.TEACHER_CHECKPOINT", folder / "teacher.pyth"]
    return ["DISTILL.ENABLE", True, *files]


@pytest.fixture(scope="module")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "imagenet"
    build(folder, DemoSettings(format="imagenet", train=16, val=8, test=8, size=32), workers=1)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return teacher_files(tmp_path_factory.mktemp("teacher"))


# ------------------------------------------------------------------ inputs and losses
@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (4, 2, 8, 8, 3)])
@pytest.mark.parametrize("reversed_channels", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0)])
def test_mixed_inputs_are_what_the_teachers_own_normalization_gives(
    shape: tuple[int, ...], reversed_channels: tuple[bool, bool], alphas: tuple[float, float]
) -> None:
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sections = [get_cfg().DATA, get_cfg().DATA]
    sections[0].MEAN, sections[0].STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    sections[1].MEAN, sections[1].STD = [0.1, 0.2, 0.3], [0.5, 0.3, 0.1]
    mixed = []
    for section, is_reversed in zip(sections, reversed_channels, strict=True):
        section.REVERSE_INPUT_CHANNEL = is_reversed
        inputs = normalize(clips, section.MEAN, section.STD, is_reversed)
        mixup = Mixup(*alphas, probability=1, switch_probability=0.5, smoothing=0, num_classes=2)
        mixed.append(mixup(inputs, torch.zeros(4, dtype=torch.long), np.random.default_rng(1))[0])
    before = mixed[0].clone()
    found = Renormalize(*sections, CPU)(mixed[0])
    torch.testing.assert_close(found, mixed[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(mixed[0], before)
    assert Renormalize(sections[0], sections[0], CPU)(mixed[0]) is mixed[0]


def plain_loss(kind: str, logits: torch.Tensor, teacher_logits: torch.Tensor, tau: float) -> torch.Tensor:
    """Clip by clip, class by class."""
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in zip(logits.double(), teacher_logits.double(), strict=True):
        if kind == "hard":
            total = total + student.exp().sum().log() - student[teacher.argmax()]
            continue
        p, q = (teacher / tau).softmax(0), (student / tau).softmax(0)
        total = total + tau**2 * (p * (p / q).log()).sum()
    return total / len(logits)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_losses_are_the_papers(kind: str, tau: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, teacher_logits = torch.randn(6, 5, generator=generator), 3 * torch.randn(6, 5, generator=generator)
    found = LOSSES[kind](logits, teacher_logits, tau)
    torch.testing.assert_close(found, plain_loss(kind, logits, teacher_logits, tau).float())
    # Processes and accumulation steps add up to the whole batch.
    halves = [LOSSES[kind](logits[part], teacher_logits[part], tau) for part in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, found)
    assert LOSSES[kind](logits.bfloat16(), teacher_logits.bfloat16(), tau).dtype == torch.float32


@pytest.mark.parametrize("kind", LOSSES)
def test_a_step_follows_the_formula_and_leaves_the_teacher_alone(
    kind: str, images_folder: Path, teacher: list[object], tmp_path: Path
) -> None:
    more = ["MIXUP.ENABLE", False, "EAT.DROP_DEPTH_RATE", 0.0, "DISTILL.TYPE", kind, "DISTILL.ALPHA", 0.3]
    cfg = config(images_folder, tmp_path, *STUDENT, *more, *teacher)
    torch.manual_seed(0)
    student = build_model(cfg)
    distillation = Distillation.from_config(cfg, CPU)
    before = {key: value.clone() for key, value in distillation.teacher.state_dict().items()}
    forward, optimizer = ClipForward.from_config(cfg, CPU), build_optimizer(cfg, student)
    step = TrainStep(cfg, World(), AllHeads(student), optimizer, forward, None, distillation)
    clips = torch.randint(0, 256, (8, 1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8)

    own = load_config(cfg.DISTILL.TEACHER_CFG)
    alone = randomized(build_model(own))
    with torch.no_grad():
        teacher_logits = alone(normalize(clips[:, 0], own.DATA.MEAN, own.DATA.STD, own.DATA.REVERSE_INPUT_CHANNEL))
    classes, distilled = student.forward_heads(forward.prepare(clips))
    shares = torch.eye(8) * 0.9 + 0.1 / 8
    base = -(shares * classes.log_softmax(1)).sum(1).mean()
    want = 0.7 * base + 0.3 * plain_loss(kind, distilled, teacher_logits, 3.0).float()
    gradients = torch.autograd.grad(want, list(student.parameters()))

    metrics = step(TrainBatch(clips, labels, [], []), 0, 0, 0.0)
    torch.testing.assert_close(metrics[0], want.detach(), rtol=1e-4, atol=1e-5)
    accuracy = 100 * ((classes + distilled).argmax(1) == labels).float().mean()
    torch.testing.assert_close(metrics[1], accuracy)
    for parameter, gradient in zip(student.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    after = distillation.teacher.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not distillation.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in distillation.teacher.parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(student.parameters()))


def test_a_student_with_one_head_is_taught_at_it(images_folder: Path, teacher: list[object], tmp_path: Path) -> None:
    more = ["EAT.DISTILLED", False, "DISTILL.TYPE", "soft", "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False]
    more += ["TRAIN.MIXED_PRECISION", True]
    cfg = config(images_folder, tmp_path, *STUDENT, *more, *teacher)
    losses = []
    for alpha in (0.0, 1.0):
        cfg.DISTILL.ALPHA, cfg.OUTPUT_DIR = alpha, str(tmp_path / str(alpha))
        run(cfg)
        losses.append(metrics(Path(cfg.OUTPUT_DIR))[0]["loss"])
    assert losses[0] == pytest.approx(math.log(8), rel=0.1) and abs(losses[1] - losses[0]) > 0.1


# ------------------------------------------------------------------ whole runs
def metrics(output: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == "train"]


def state(output: Path) -> checkpoints.State:
    path = checkpoints.find_last(output)
    assert path is not None
    return checkpoints.read_checkpoint(path)


def full(data: Path, output: Path, teacher: list[object], *more: object) -> list[object]:
    averaging = ["MODEL.EMA", True, "MODEL.EMA_DECAY", 0.9, "AUG.NUM_SAMPLE", 2, "TEST.ENABLE", False]
    return [*tiny_settings(data, output), *STUDENT, *averaging, "SOLVER.MAX_EPOCH", 2, *teacher, *more]


def test_processes_accumulation_and_resuming_change_nothing(
    images_folder: Path, teacher: list[object], tmp_path: Path
) -> None:
    for name, steps in (("whole", 1), ("parts", 2)):
        settings = full(images_folder, tmp_path / name, teacher, "TRAIN.ACCUMULATION_STEPS", steps)
        run(config(images_folder, tmp_path, *settings))
    done = run_net(full(images_folder, tmp_path / "processes", teacher), processes=2)
    assert done.returncode == 0, done.stderr
    whole = metrics(tmp_path / "whole")
    assert [row["step"] for row in whole] == [1, 2, 3, 4]
    for name in ("parts", "processes"):
        for one, other in zip(whole, metrics(tmp_path / name), strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    wanted = state(tmp_path / "whole")
    own = {key for key, _ in build_model(config(images_folder, tmp_path, *STUDENT)).state_dict().items()}
    assert wanted["model_state"].keys() == wanted["ema_state"].keys() == own
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    (tmp_path / "resumed" / "checkpoints" / checkpoints.checkpoint_name(2, 0)).unlink()
    run(config(images_folder, tmp_path, *full(images_folder, tmp_path / "resumed", teacher)))
    resumed = state(tmp_path / "resumed")
    for part in ("model_state", "ema_state"):
        assert all(torch.equal(resumed[part][key], wanted[part][key]) for key in own)


def test_a_framewise_teacher_of_clips(kinetics_folder: Path, tmp_path: Path) -> None:
    clips = ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics", "MODEL.FRAMEWISE", "logits"]
    taught_by = teacher_files(tmp_path / "teacher", *clips)
    cfg = config(kinetics_folder, tmp_path / "out", "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False, *taught_by)
    check_distillation(cfg)
    run(cfg)
    assert len(metrics(tmp_path / "out")) == 2


# ------------------------------------------------------------------ mistakes
EAT_TEACHER = ["MODEL.MODEL_NAME", "EAT", "EAT.PATCH_SIZE", 8, "EAT.EMBED_DIM", 16, "EAT.LAYERS", 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.NUM_CLASSES", 9], "NUM_CLASSES .9. must equal the student's .8."),
        (["MODEL.FRAMEWISE", "logits"], "teacher.yaml: MODEL.FRAMEWISE is for clips, but the dataset imagenet"),
        (
            ["MODEL.MODEL_NAME", "MorphMLP"],
            "MorphMLP takes clips, but the dataset imagenet contains images",
        ),
        (EAT_TEACHER, "does not accept the student's clips of 32 x 32 .*images of 64 x 64 pixels, not 32 x 32"),
    ],
)
def test_a_teacher_that_does_not_suit_is_refused(
    overrides: list[object], message: str, images_folder: Path, tmp_path: Path
) -> None:
    cfg = config(images_folder, tmp_path / "out", *STUDENT, *teacher_files(tmp_path / "teacher", *overrides))
    with pytest.raises(ConfigError, match=message) as caught:
        check_distillation(cfg)
    assert "\n" not in str(caught.value)


def test_a_teacher_for_images_or_other_lengths_cannot_take_clips(kinetics_folder: Path, tmp_path: Path) -> None:
    images = teacher_files(tmp_path / "images")
    with pytest.raises(ConfigError, match="ConvMLP takes images, but the dataset kinetics contains clips"):
        check_distillation(config(kinetics_folder, tmp_path / "out", *images))
    clips = ["MODEL.MODEL_NAME", "MorphMLP", "DATA.NUM_FRAMES", 8, "DATA.TEST_CROP_SIZE", 32]
    clips += ["TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics"]
    longer = teacher_files(tmp_path / "clips", *clips)
    with pytest.raises(ConfigError, match="student's clips of 4 x 32 x 32 .*for clips of 8 frames, not 4"):
        check_distillation(config(kinetics_folder, tmp_path / "out", *longer))


def test_events_are_not_distilled(images_folder: Path, teacher: list[object], tmp_path: Path) -> None:
    cfg = config(images_folder, tmp_path, *STUDENT, *teacher, "TRAIN.DATASET", "asldvs")
    with pytest.raises(ConfigError, match="for images and clips, but TRAIN.DATASET asldvs contains events"):
        check_distillation(cfg)


def test_missing_files_are_named_before_anything_starts(
    images_folder: Path, teacher: list[object], tmp_path: Path
) -> None:
    settings = dict(zip(teacher[::2], teacher[1::2], strict=True))
    for key, value, message in (
        ("DISTILL.TEACHER_CFG", "", "DISTILL.TEACHER_CFG is empty"),
        ("DISTILL.TEACHER_CHECKPOINT", "", "DISTILL.TEACHER_CHECKPOINT is empty"),
        ("DISTILL.TEACHER_CFG", "no/teacher.yaml", "DISTILL.TEACHER_CFG: no/teacher.yaml does not exist"),
        ("DISTILL.TEACHER_CHECKPOINT", tmp_path / "no.pyth", "DISTILL.TEACHER_CHECKPOINT: .*no.pyth does not exist"),
    ):
        changed = [part for pair in (settings | {key: value}).items() for part in pair]
        (tmp_path / "student.yaml").write_text(config(images_folder, tmp_path / "out", *STUDENT, *changed).dump())
        with pytest.raises(ConfigError, match=message):
            check_teacher_weights(load_config(tmp_path / "student.yaml"))
        load_config(tmp_path / "student.yaml", ["TRAIN.ENABLE", False])  # a test needs no teacher


def test_weights_of_another_network_are_refused_whole(images_folder: Path, tmp_path: Path) -> None:
    named = teacher_files(tmp_path)
    weights = torch.load(tmp_path / "teacher.pyth", weights_only=True)["model_state"]
    cfg = config(images_folder, tmp_path / "out", *STUDENT, *named)
    for changed in (
        {key: value for key, value in weights.items() if key != "head.bias"},
        weights | {"head.weight": torch.zeros(9, 16), "head.bias": torch.zeros(9)},
    ):
        torch.save(changed, tmp_path / "teacher.pyth")
        with pytest.raises(CheckpointError, match="DISTILL.TEACHER_CHECKPOINT: .*does not fit this ConvMLP"):
            Distillation.from_config(cfg, CPU)


# Settings that make the teachers small but keep every kind of layer.
SMALL_TEACHERS = {
    "REGNETY_160": "REGNET: {LAYERS: [1, 1, 1, 1], EMBED_DIMS: [8, 8, 16, 16], GROUP_WIDTH: 8}",
    "EFFICIENTNET_V2_S": "EFFICIENTNET: {LAYERS: [1, 1, 1, 1, 1, 1], EMBED_DIMS: [8, 8, 8, 8, 8, 8], HEAD_DIM: 8}",
}


@pytest.mark.parametrize(
    ("recipe", "teacher"),
    [("EAT_TI_DIST", "REGNETY_160"), ("EAT_S_DIST", "REGNETY_160"), ("EVMLP_DIST", "EFFICIENTNET_V2_S")],
)
def test_a_step_of_each_distilled_recipe(
    recipe: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published settings with a small teacher: only its weights have to be given, in any working directory."""
    monkeypatch.chdir(tmp_path)
    configs = ROOT / "configs/ImageNet"
    published = load_config(configs / f"{recipe}.yaml", ["OUTPUT_DIR", tmp_path])
    assert published.DISTILL.ENABLE and published.TRAIN.ENABLE
    assert Path(published.DISTILL.TEACHER_CFG).samefile(configs / f"TEACHER_{teacher}.yaml")
    with pytest.raises(ConfigError, match="TEACHER_CHECKPOINT is empty.*Set it to the trained weights of .*TEACHER_"):
        check_teacher_weights(published)
    small = tmp_path / "teacher.yaml"
    small.write_text(f"_BASE_: {configs}/TEACHER_{teacher}.yaml\n{SMALL_TEACHERS[teacher]}\n")
    torch.manual_seed(0)
    weights = build_model(load_config(small, ["OUTPUT_DIR", tmp_path])).state_dict()
    torch.save(
        weights if teacher == "EFFICIENTNET_V2_S" else {"model": weights}, tmp_path / "teacher.pth"
    )  # as published
    given = ["DISTILL.TEACHER_CFG", small, "DISTILL.TEACHER_CHECKPOINT", tmp_path / "teacher.pth"]
    cfg = load_config(
        configs / f"{recipe}.yaml", ["OUTPUT_DIR", tmp_path, "NUM_GPUS", 0, "TRAIN.BATCH_SIZE", 2, *given]
    )
    check_teacher_weights(cfg)
    distillation, model = Distillation.from_config(cfg, CPU), build_model(cfg)
    forward = ClipForward.from_config(cfg, CPU)
    optimizer = build_optimizer(cfg, model)
    step = TrainStep(cfg, World(), AllHeads(model), optimizer, forward, None, distillation)
    images = torch.randint(0, 256, (2, 1, 224, 224, 3), dtype=torch.uint8)
    loss, _ = step(TrainBatch(images, torch.tensor([3, 5]), [], []), 0, 0, cfg.SOLVER.BASE_LR)
    assert float(loss) == pytest.approx(math.log(1000), abs=1)  # chance, of labels and of the teacher's classes
    heads = [p for name, p in model.named_parameters() if name.partition(".")[0] in model.head_names()]
    assert heads and all(p.grad is not None and p.grad.any() for p in heads)


def test_a_wrong_type_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("DISTILL:\n  TYPE: sotf\n")
    with pytest.raises(UserError, match="DISTILL.TYPE.*sotf.*soft"):
        load_config(tmp_path / "a.yaml", ["OUTPUT_DIR", tmp_path])
