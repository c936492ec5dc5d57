"""Both UNets: shapes, conditions, and sizes that do not fit."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from adainf.errors import BadInput
from adainf.models.diffusers_unet import DiffusersUNet
from adainf.models.unet import UNet
from adainf.recipe import Unet
from tests.generators.tiny import shake

KINDS: dict[str, type[nn.Module]] = {"small": UNet, "diffusers": DiffusersUNet}


def build(kind: str, size_px: int = 8, mirrors: bool = False) -> nn.Module:
    config = Unet.model_validate({"kind": kind, "channels": 8, "multipliers": [1, 2, 2], "attention_below_px": 4})
    network = KINDS[kind](config, size_px, mirrors).eval()
    shake(network)
    return network


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_px", [8, 28])
def test_the_shape_is_kept(kind: str, size_px: int) -> None:
    x = torch.randn(2, 3, size_px, size_px)
    assert build(kind, size_px)(x, torch.zeros(2)).shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
def test_noise_levels_differ_and_may_be_negative(kind: str) -> None:
    """diffusers' "fourier" embedding would take the logarithm of a negative number."""
    network, x = build(kind), torch.randn(1, 3, 8, 8)
    outs = [network(x, torch.tensor([level])) for level in (-1.5, 0.0, 1.1)]
    scale = outs[0].std()
    assert all(out.isfinite().all() for out in outs)
    assert (outs[0] - outs[1]).abs().mean() > 0.02 * scale
    assert (outs[1] - outs[2]).abs().mean() > 0.02 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_no_image_is_mirrored(kind: str) -> None:
    network, x, level = build(kind, mirrors=True), torch.randn(2, 3, 8, 8), torch.zeros(2)
    default = network(x, level)
    torch.testing.assert_close(network(x, level, torch.tensor([False, False])), default, rtol=0, atol=0)
    mirrored = network(x, level, torch.tensor([False, True]))
    torch.testing.assert_close(mirrored[0], default[0])
    assert not torch.allclose(mirrored[1], default[1], atol=1e-3)


def test_the_small_one_starts_at_zero() -> None:
    network = UNet(Unet(channels=8), 8)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros_like(x))


@pytest.mark.parametrize(("size", "unet"), [(10, Unet(multipliers=(1, 2, 2))), (8, Unet(channels=12))])
def test_sizes_that_do_not_fit_are_refused(size: int, unet: Unet) -> None:
    with pytest.raises(ValueError, match="multiple"):
        UNet(unet, size)


def test_the_ddpm_papers_network_has_the_papers_size() -> None:
    """35.7 million weights (Ho et al. 2020, appendix B)."""
    config = Unet(kind="diffusers", channels=128, multipliers=(1, 2, 2, 2), attention_below_px=16, blocks=2)
    with torch.device("meta"):
        network = DiffusersUNet(config, 32)
    # Theirs has attention only at 16 x 16, ours below that, too.
    assert 35.7e6 < sum(parameter.numel() for parameter in network.parameters()) < 39e6


def test_without_the_library_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadInput, match=r"generator.unet.kind is diffusers.*pip install 'adainf\[generate\]'"):
        DiffusersUNet(Unet(kind="diffusers"), 8)
