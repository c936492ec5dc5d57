"""Features: every image once and in its place on any number of processes, and an encoder that is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adainf.errors import BadInput
from adainf.evaluation.features import extract
from tests.evaluation.encoders import digest, make_encoder
from tests.processes import run_on_ranks

CPU = torch.device("cpu")


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


class Counting(nn.Module):
    """The image's first pixel as its only feature, and how many images came."""

    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.seen += len(x_BCHW)
        return x_BCHW[:, 0, 0, :1]


SIZES = ((24, 4), (23, 4), (7, 3), (2, 1), (1, 8), (0, 4))
"""(images, batch): counts that divide and do not, fewer images than ranks, and none at all."""


def count_on_rank() -> list[tuple[Tensor, int]]:
    found = []
    for count, batch in SIZES:
        encoder = make_encoder()
        encoder.backbone = counting = Counting()  # type: ignore[assignment]
        numbered = np.zeros((count, 2, 2, 3), np.uint8)
        numbered[:, 0, 0, 0] = np.arange(count)
        values = torch.from_numpy(extract(encoder, numbered, batch, CPU))
        found.append((torch.round((values * 0.3 + 0.5) * 255), counting.seen))
    return found


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_image_is_seen_once_and_lands_in_its_place(world: int) -> None:
    for (count, batch), ranks in zip(SIZES, zip(*run_on_ranks(world, count_on_rank), strict=True), strict=True):
        assert sum(seen for _, seen in ranks) == count, (count, batch)
        for found, _ in ranks:
            assert found.shape == (count, 1)
            assert found[:, 0].tolist() == list(range(count)), (count, batch)


def features_on_rank() -> Tensor:
    return torch.from_numpy(extract(make_encoder(), images(23), 4, CPU))


def test_any_number_of_processes_gives_the_same_bits() -> None:
    one, *_ = run_on_ranks(1, features_on_rank)
    for world in (2, 3):
        assert all(torch.equal(found, one) for found in run_on_ranks(world, features_on_rank))


def test_features_are_the_backbones_own_and_do_not_depend_on_the_batch() -> None:
    encoder = make_encoder()
    one, many = extract(encoder, images(23), 23, CPU), extract(encoder, images(23), 7, CPU)
    np.testing.assert_allclose(one, many, atol=1e-5)
    x = (torch.from_numpy(images(23)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.3
    with torch.no_grad():
        np.testing.assert_allclose(one, encoder.backbone.eval()(x).numpy(), atol=1e-5)


def test_the_encoder_is_left_alone_in_evaluation_mode_and_can_still_be_trained() -> None:
    encoder = make_encoder().train()
    before = digest(encoder)
    extract(encoder, images(9), 4, CPU)
    assert digest(encoder) == before
    assert not any(module.training for module in encoder.modules())
    encoder(torch.from_numpy(images(2))).sum().backward()
    assert encoder.backbone.conv1.weight.grad is not None


def test_it_runs_in_inference_mode() -> None:
    modes: list[bool] = []
    encoder = make_encoder()
    encoder.backbone.register_forward_hook(lambda *_: modes.append(torch.is_inference_mode_enabled()))
    extract(encoder, images(3), 2, CPU)
    assert modes == [True, True]


def test_a_backbone_for_another_size_is_reported() -> None:
    class Picky(Counting):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            raise AssertionError("Input height (8) doesn't match model (32).")

    encoder = make_encoder()
    encoder.backbone = Picky()  # type: ignore[assignment]
    with pytest.raises(BadInput, match=r"does not accept images of 8 x 8 px \(Input height \(8\)"):
        extract(encoder, images(3), 2, CPU)
