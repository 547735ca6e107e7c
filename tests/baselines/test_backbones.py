from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baselines import backbones
from harness.errors import RequestError

MODELS: dict[str, dict[str, Any]] = {
    "vit": {
        "model_type": "vit",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 32,
        "patch_size": 16,
    },
    "resnet": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32},
    "clip": {
        "model_type": "clip",
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 32,
            "patch_size": 16,
        },
    },
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [24, 48, 50, 64])
def test_the_small_net_takes_any_frame_and_is_small(channels: int, size: int) -> None:
    net = backbones.build({"name": "conv"}, channels=channels, dim=32)
    assert net(torch.rand(2, channels, size, size)).shape == (2, 32)
    assert sum(p.numel() for p in backbones.build({"name": "conv"}, channels=channels).parameters()) < 0.5e6


def test_the_small_net_sees_a_frame_on_its_own_and_not_its_light() -> None:
    net = backbones.build({"name": "conv"}, channels=1, dim=32).train()
    frames = torch.rand(4, 1, 48, 48)
    together = net(frames)
    torch.testing.assert_close(torch.cat([net(frame[None]) for frame in frames]), together, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net(0.5 * frames + 0.2), together, atol=1e-4, rtol=1e-3)
    assert torch.isfinite(net(torch.zeros(1, 1, 48, 48))).all()


def test_the_small_net_trains_in_bf16() -> None:
    net = backbones.build({"name": "conv"}, channels=1, dim=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.rand(4, 1, 48, 48)).float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_any_vision_model_of_transformers_can_be_built_from_its_config(name: str) -> None:
    net = backbones.build({"name": "transformers", "config": MODELS[name]}, channels=1, dim=12)
    out = net(torch.rand(3, 1, 48, 48))
    assert out.shape == (3, 12)
    out.sum().backward()
    assert all(p.grad is not None for p in net.network.parameters())


def test_weights_come_from_a_local_folder_and_frames_are_normalised_as_it_says(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel, ViTImageProcessor

    settings = dict(MODELS["vit"])
    saved = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).eval()
    saved.save_pretrained(tmp_path)
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    net = backbones.build({"name": "transformers", "model": str(tmp_path)}, channels=1, dim=12).eval()
    grey = torch.rand(2, 1, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    expected = saved(pixel_values=(grey.repeat(1, 3, 1, 1) - mean) / std).pooler_output
    torch.testing.assert_close(net(grey), net.embedding(expected), atol=1e-5, rtol=1e-4)
    fresh = backbones.build({"name": "transformers", "model": str(tmp_path), "pretrained": False}, channels=1, dim=12)
    assert not torch.equal(next(fresh.network.parameters()), next(saved.parameters()))


def test_a_frozen_backbone_rests_while_its_last_layer_learns() -> None:
    net = backbones.build({"name": "transformers", "config": MODELS["resnet"], "frozen": True}, channels=3, dim=12).train()
    before = {name: value.clone() for name, value in net.network.state_dict().items()}
    net(torch.rand(3, 3, 32, 32)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["embedding.weight", "embedding.bias"]
    assert all(torch.equal(value, before[name]) for name, value in net.network.state_dict().items())  # running statistics, too


@pytest.mark.parametrize("size", [24, 48, 50])
def test_the_small_net_gives_its_last_map_which_its_embedding_is_made_of(size: int) -> None:
    net = backbones.build({"name": "conv"}, channels=1, dim=32)
    frames = torch.rand(3, 1, size, size)
    maps = net.maps(frames)  # type: ignore[operator]
    assert maps.shape == (3, net.map_width, size // 8, size // 8)
    pooled = torch.nn.functional.adaptive_avg_pool2d(maps, 3).flatten(1)
    torch.testing.assert_close(net.embedding(pooled), net(frames))  # type: ignore[operator]


@pytest.mark.parametrize(("name", "shape"), [("vit", (16, 2, 2)), ("resnet", (16, 4, 4)), ("convnext", (16, 1, 1)), ("clip", (16, 2, 2))])
def test_any_vision_model_gives_its_last_map(name: str, shape: tuple[int, ...]) -> None:
    net = backbones.build({"name": "transformers", "config": MODELS[name]}, channels=1, dim=None)
    assert net.embedding is None
    assert net.maps(torch.rand(3, 1, 32, 32)).shape == (3, *shape)  # type: ignore[operator]
    assert net.map_width == shape[0]


def test_patches_lie_in_the_map_where_they_lie_in_the_image() -> None:
    config = {**MODELS["vit"], "image_size": 64}
    net = backbones.build({"name": "transformers", "config": config}, channels=1, dim=None).eval()
    frames = torch.rand(1, 1, 64, 64)
    tokens = net.network(pixel_values=(frames.expand(-1, 3, -1, -1) - 0.5) / 0.5).last_hidden_state  # type: ignore[operator]
    maps = net.maps(frames)  # type: ignore[operator]
    assert maps.shape == (1, 16, 4, 4)
    torch.testing.assert_close(maps[0, :, 2, 1], tokens[0, 1 + 2 * 4 + 1])  # behind the token of the class, row by row


def test_patches_that_were_merged_are_a_map_and_what_fits_no_grid_is_one_row() -> None:
    net = backbones.build({"name": "transformers", "config": MODELS["vit"]}, channels=1, dim=None)

    class Output:
        def __init__(self, n: int) -> None:
            self.last_hidden_state = torch.randn(2, n, 16)

    assert net._map(Output(49)).shape == (2, 16, 7, 7)  # type: ignore[operator]
    assert net._map(Output(23)).shape == (2, 16, 1, 23)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"name": "cnov"}, r"no backbone is called 'cnov' .*did you mean 'conv'"),
        ({"name": "conv", "width": 3}, "unexpected keyword argument 'width'"),
        ({"name": "conv", "widths": [12, 0]}, "whole numbers from 1"),
        ({"name": "transformers"}, "neither a model nor a model_type"),
        ({"name": "transformers", "config": {"model_type": "nonsense"}}, "no such vision model"),
        ({"name": "transformers", "config": {"model_type": "bert", "num_hidden_layers": 1}}, "is no vision model"),
        ({"name": "transformers", "model": "nobody/nothing-here"}, r"cannot load nobody/nothing-here: .*backbone.download=true"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(config: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line) as error:
        backbones.build(config, channels=1)
    assert "\n" not in str(error.value)


def test_colour_frames_are_refused_by_a_model_of_one_channel() -> None:
    with pytest.raises(RequestError, match="frames of 3 channels for a model of 1"):
        backbones.build({"name": "transformers", "config": {**MODELS["vit"], "num_channels": 1}}, channels=3)
