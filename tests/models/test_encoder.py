"""Encoder files are self-describing, and do not load as another backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adainf import recipe
from adainf.errors import BadInput
from adainf.models.backbones import build_backbone
from adainf.models.encoder import Encoder, Normalisation
from adainf.shards.format.manifest import Split
from adainf.shards.format.writer import channel_moments, pixel_facts

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def normalisation(images: np.ndarray) -> Normalisation:
    facts = pixel_facts(images)
    assert facts is not None
    means, stds = channel_moments([facts], 1)
    return Normalisation.of(Split.of([], labelled=False, channel_means=means, channel_stds=stds))


def encoder(**config: object) -> Encoder:
    described = recipe.Backbone.model_validate(config)
    return Encoder(described, build_backbone(described), normalisation(IMAGES)).eval()


@pytest.mark.parametrize(
    ("config", "features"),
    [
        ({"name": "resnet-small"}, 128),
        ({"name": "resnet18"}, 512),
        ({"name": "resnet18", "stem_padding": 2}, 512),
        ({"name": "resnet18", "stem": "imagenet", "stem_padding": 3}, 512),
    ],
)
def test_a_file_gives_the_same_features(config: dict[str, object], features: int) -> None:
    original = encoder(**config)
    data = original.to_bytes()
    assert original.to_bytes() == data
    loaded = Encoder.from_bytes(data, "encoder.safetensors", original.config).eval()
    images = torch.from_numpy(IMAGES)
    assert original(images).shape == (6, features)
    assert torch.equal(loaded(images), original(images))


def test_another_stem_padding_is_refused_though_the_weights_would_fit() -> None:
    data = encoder(name="resnet18", stem_padding=2).to_bytes()
    with pytest.raises(BadInput, match=r"contains .*stem_padding=2.*recipe has .*stem_padding=1.*set pretrain.backbone"):
        Encoder.from_bytes(data, "encoder.safetensors", recipe.Backbone(name="resnet18", stem_padding=1))


def test_the_cifar_stem_of_the_paper_keeps_34_pixels() -> None:
    """Reference implementation: 3 x 3, stride 1, padding 2, no pooling, so 32 px become 34."""
    stem = build_backbone(recipe.Backbone(name="resnet18", stem="cifar", stem_padding=2))
    assert stem.maxpool(stem.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 64, 34, 34)


def test_normalisation_is_the_channels_mean_and_deviation() -> None:
    found = normalisation(IMAGES)
    np.testing.assert_allclose(found.mean, (IMAGES / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(found.std, (IMAGES / 255).std((0, 1, 2)), atol=1e-6)
    flat = normalisation(np.full((2, 4, 4, 3), 7, np.uint8))
    assert flat.std == (1.0, 1.0, 1.0)
