"""Spaces: the random network is the same everywhere, and a weights file is accepted only with its SHA-256."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from adainf.errors import BadInput
from adainf.models.encoder import Normalisation
from adainf.quality.inception import inception
from adainf.quality.spaces import of_encoder, random_encoder
from adainf.recipe import Inception
from tests.evaluation.encoders import digest, make_encoder

CPU = torch.device("cpu")
NORMALISATION = Normalisation((0.5,) * 3, (0.3,) * 3)


def images(count: int, size_px: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def test_the_random_network_is_a_function_of_the_images_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = random_encoder(images(40), NORMALISATION)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert digest(first) == digest(random_encoder(images(40), NORMALISATION))
    assert digest(first) != digest(random_encoder(images(40, seed=1), NORMALISATION))
    space = of_encoder("rand", first, 16, CPU)
    assert space.sha256 == hashlib.sha256(first.to_bytes()).hexdigest()
    assert space.features(images(5), "generated").shape == (5, 128)


def test_its_batch_normalisation_has_the_statistics_of_the_images() -> None:
    """Of the first layer, whose inputs are known: the mean over all batches, and no trace of the initial zeros and ones."""
    shown = images(300)
    encoder = random_encoder(shown, NORMALISATION)
    with torch.no_grad():
        maps = [encoder.backbone.conv1(NORMALISATION.apply(torch.from_numpy(part).permute(0, 3, 1, 2) / 255))
                for part in (shown[:150], shown[150:])]  # fmt: skip
    expected = torch.stack([part.mean((0, 2, 3)) for part in maps]).mean(0)
    torch.testing.assert_close(encoder.backbone.bn1.running_mean, expected, atol=1e-5, rtol=1e-5)


def test_features_that_are_not_finite_are_refused() -> None:
    encoder = make_encoder()
    next(encoder.parameters()).data.fill_(float("nan"))
    with pytest.raises(BadInput, match="space ssl gives features that are not finite for the generated images"):
        of_encoder("ssl", encoder, 4, CPU).features(images(3), "generated")


@pytest.fixture(scope="module")
def network() -> FeatureExtractorInceptionV3:
    """Inception with random weights: its class has no way to be made without a file of some."""
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        return FeatureExtractorInceptionV3("inception", ["2048"], nothing)


def write_weights(folder: Path, held: Any) -> Inception:
    path = folder / "weights.pth"
    torch.save(held, path)
    return Inception(weights=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.heavy
def test_inception_gives_torch_fidelitys_features(network: FeatureExtractorInceptionV3, tmp_path: Path) -> None:
    config = write_weights(tmp_path, network.state_dict())
    space = inception(config, 2, CPU)
    shown = images(3, size_px=16)
    expected = network(torch.from_numpy(shown).permute(0, 3, 1, 2))[0].numpy()
    np.testing.assert_allclose(space.features(shown, "real"), expected, atol=1e-5)
    assert space.sha256 == config.sha256


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "sprung")


def test_a_file_with_code_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    config = write_weights(tmp_path, {"fc.weight": Trap(tmp_path / "sprung")})
    with pytest.raises(BadInput, match=r"weights\.pth does not hold torch-fidelity's Inception-v3 weights"):
        inception(config, 2, CPU)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists(), "a trap that does not work would show nothing"


@pytest.mark.parametrize("held", [{}, {"fc.weight": torch.zeros(2)}, [1, 2]])
def test_a_file_with_other_tensors_is_refused(tmp_path: Path, held: Any) -> None:
    with pytest.raises(BadInput, match=r"weights\.pth does not hold torch-fidelity's Inception-v3 weights"):
        inception(write_weights(tmp_path, held), 2, CPU)


def test_a_file_of_another_hash_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Not even its format is looked at."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no weights at all")
    with pytest.raises(BadInput, match=r"has SHA-256 [0-9a-f]{64}, but quality.inception.sha256 is 0{64}"):
        inception(Inception(weights=str(path), sha256="0" * 64), 2, CPU)
    with pytest.raises(BadInput, match=r"cannot read .*weights\.pth"):
        inception(Inception(weights=str(tmp_path / "other" / "weights.pth"), sha256="0" * 64), 2, CPU)
