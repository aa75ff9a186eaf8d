"""Image networks on clips, and the inputs that networks accept."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from slowfast.errors import ConfigError
from slowfast.models.convmlp import ConvMLP
from slowfast.models.eat import EAT
from slowfast.models.event2vec import Event2Vec
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.layers import global_batch
from slowfast.models.morphmlp import MorphMLP
from slowfast.models.protocol import CLIPS, EVENTS, IMAGES, check_input, named_network
from slowfast.models.weights import load_weights
from tests.random_weights import randomized


def eat(**kwargs: object) -> EAT:
    torch.manual_seed(0)
    return EAT(5, image_size=16, patch_size=4, layers=2, embed_dim=8, heads=2, distilled=True, **kwargs)


def clips(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 4, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("average", ["logits", "features"])
def test_is_the_mean_over_frames(average: str) -> None:
    image = randomized(eat())
    model = FramewiseVideo(image, average).eval()
    x = clips(2)
    with torch.no_grad():
        want = torch.stack([image(x[:, :, t]) for t in range(x.shape[2])]).mean(0)
        torch.testing.assert_close(model(x), want)


@pytest.mark.parametrize("average", ["logits", "features"])
def test_heads_apart_are_each_heads_mean_over_frames(average: str) -> None:
    image = randomized(eat())
    model = FramewiseVideo(image, average).eval()
    x = clips(2)
    with torch.no_grad():
        frames = [image.forward_heads(x[:, :, t]) for t in range(x.shape[2])]
        classes, teacher = (torch.stack(logits).mean(0) for logits in zip(*frames, strict=True))
        torch.testing.assert_close(model.forward_heads(x), (classes, teacher))
        torch.testing.assert_close(model(x), (classes + teacher) / 2)
        single = FramewiseVideo(randomized(ConvMLP(5, (1,), (8,), (2,), 4, 1)), average).eval()
        assert torch.equal(single.forward_heads(x)[0], single(x)) and len(single.forward_heads(x)) == 1


def test_one_frame_is_the_image() -> None:
    image = randomized(eat())
    x = clips(2)[:, :, :1]
    assert torch.equal(FramewiseVideo(image).eval()(x), image(x[:, :, 0]))


def test_names_and_weights_are_the_image_networks() -> None:
    source, model = randomized(eat()), FramewiseVideo(eat()).eval()
    assert list(model.state_dict()) == list(source.state_dict())
    names = [name for name, _ in named_network(model).named_parameters()]
    assert names == [name for name, _ in source.named_parameters()]
    assert list(AveragedModel(model).state_dict())[1:] == [f"module.{key}" for key in source.state_dict()]
    load_weights(model, source.state_dict(), Path("w.pth"))
    assert torch.equal(model(clips(2)), FramewiseVideo(source).eval()(clips(2)))


def test_the_image_network_follows_into_modes_types_and_copies() -> None:
    image = randomized(eat(drop_depth_rate=0.9))
    model = FramewiseVideo(image).eval()
    want = model(clips(1))
    assert not image.training and model.train() is model and image.training and image.blocks[1].training
    twin = copy.deepcopy(model).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(clips(1).double()).float(), want, rtol=1e-4, atol=1e-5)
    assert not model(clips(1)).any()


def test_heads_of_a_framewise_network_are_known() -> None:
    source = randomized(eat())
    torch.manual_seed(0)
    target = FramewiseVideo(EAT(3, image_size=16, patch_size=4, layers=2, embed_dim=8, heads=2, distilled=True))
    load_weights(target, source.state_dict(), Path("w.pth"), allow_new_head=True)
    assert torch.equal(target.image.get_parameter("pos_embed"), source.pos_embed)
    assert target.eval()(clips(1)).shape == (1, 3)


def test_draws_do_not_depend_on_the_number_of_processes() -> None:
    model = FramewiseVideo(randomized(eat(drop_depth_rate=0.5))).train()
    x = clips(4)

    def logits(rows: list[int]) -> torch.Tensor:
        torch.manual_seed(0)
        with global_batch(model, 4, rows):
            return model(x[rows])

    torch.testing.assert_close(logits([2, 0]), logits([0, 1, 2, 3])[[2, 0]])


def test_only_image_networks_and_known_averages() -> None:
    with pytest.raises(ConfigError, match="MorphMLP takes clips"):
        FramewiseVideo(MorphMLP(5, 4, (1,), (8,), (4,), (1,)))
    with pytest.raises(ConfigError, match="FRAMEWISE.*median"):
        FramewiseVideo(eat(), "median")


@pytest.mark.parametrize(
    ("network", "framewise", "gives", "message"),
    [
        (ConvMLP, False, IMAGES, None),
        (ConvMLP, True, CLIPS, None),
        (MorphMLP, False, CLIPS, None),
        (Event2Vec, False, EVENTS, None),
        (MorphMLP, True, CLIPS, "for image networks, but MorphMLP takes clips"),
        (ConvMLP, True, IMAGES, "the dataset demo contains images"),
        (MorphMLP, False, IMAGES, "MorphMLP takes clips, but the dataset demo contains images"),
        (MorphMLP, False, EVENTS, "MorphMLP takes clips, but the dataset demo contains events"),
        (Event2Vec, False, CLIPS, "Event2Vec takes events, but the dataset demo contains clips"),
        (ConvMLP, False, CLIPS, "ConvMLP takes images.*Set MODEL.FRAMEWISE logits"),
    ],
)
def test_network_and_dataset_must_fit(
    network: type[nn.Module], framewise: bool, gives: str, message: str | None
) -> None:
    if message is None:
        check_input(network, framewise, "demo", gives)
        return
    with pytest.raises(ConfigError, match=message):
        check_input(network, framewise, "demo", gives)
