"""Each loss against a loop of its paper, against lightly's where that is right, and against what must not matter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from lightly import loss as lightly
from torch import Tensor
from torch.nn import functional as F

from adainf.methods.barlow import barlow_twins
from adainf.methods.byol import regression
from adainf.methods.clip import image_text_info_nce, tokens_of
from adainf.methods.dino import dino
from adainf.methods.moco import info_nce
from adainf.methods.simclr import nt_xent
from adainf.methods.simsiam import negative_cosine
from adainf.methods.spectral import spectral_contrastive
from adainf.methods.vicreg import vicreg

BATCH, SIZE = 7, 5
DISTINCT = torch.arange(BATCH)
COPIES = torch.tensor([0, 1, 2, 1, 4, 5, 0])


def projections(count: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, SIZE, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(count)]


def same_value_and_gradient(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], inputs: list[Tensor]) -> None:
    mine, other = ours(), theirs()
    torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)
    for gradient, expected in zip(
        torch.autograd.grad(mine, inputs, allow_unused=True), torch.autograd.grad(other, inputs, allow_unused=True), strict=True
    ):
        if expected is None:
            assert gradient is None, "what is not to learn gets a gradient"
        else:
            torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


def cos(a: Tensor, b: Tensor) -> Tensor:
    return a @ b / (a.norm() * b.norm())


# ------------------------------------------------------------------------------------------------ loops of the papers


def nt_xent_loop(z1: Tensor, z2: Tensor, images: Tensor, t: float) -> Tensor:
    z, of = torch.cat([z1, z2]), torch.cat([images, images])
    losses = []
    for i in range(len(z)):
        j = (i + len(z1)) % len(z)
        others = [torch.exp(cos(z[i], z[k]) / t) for k in range(len(z)) if k == j or of[k] != of[i]]
        losses.append(-torch.log(torch.exp(cos(z[i], z[j]) / t) / sum(others)))
    return torch.stack(losses).mean()


def info_nce_loop(q: Tensor, k: Tensor, queue: Tensor, own: Tensor, queued: Tensor, t: float) -> Tensor:
    losses = []
    for i in range(len(q)):
        positive = torch.exp(cos(q[i], k[i]) / t)
        negatives = [torch.exp(cos(q[i], n) / t) for n, image in zip(queue, queued, strict=True) if image != own[i]]
        losses.append(-torch.log(positive / (positive + sum(negatives))))
    return torch.stack(losses).mean()


def barlow_loop(z1: Tensor, z2: Tensor, weight: float) -> Tensor:
    def standard(z: Tensor) -> Tensor:
        return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()

    a, b = standard(z1), standard(z2)
    total = torch.zeros((), dtype=z1.dtype)
    for i in range(z1.shape[1]):
        for j in range(z1.shape[1]):
            c = sum(a[n, i] * b[n, j] for n in range(len(a))) / len(a)
            total = total + ((1 - c) ** 2 if i == j else weight * c**2)
    return total


def vicreg_loop(z1: Tensor, z2: Tensor) -> Tensor:
    total = 25 * sum(((a - b) ** 2).sum() for a, b in zip(z1, z2, strict=True)) / z1.numel()
    for z in (z1, z2):
        size = z.shape[1]
        mean = z.mean(0)
        for i in range(size):
            for j in range(size):
                c = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in z) / (len(z) - 1)
                if i == j:
                    total = total + 25 * torch.clamp(1 - torch.sqrt(c + 1e-4), min=0) / size / 2
                else:
                    total = total + c**2 / size
    return total


def spectral_loop(z1: Tensor, z2: Tensor, images: Tensor, mu: float) -> Tensor:
    def within(z: Tensor) -> Tensor:
        return torch.stack([row if row.norm() <= mu**0.5 else row * mu**0.5 / row.norm() for row in z])

    a, b = within(z1), within(z2)
    attract = torch.stack([a[i] @ b[i] for i in range(len(a))]).mean()
    repel = torch.stack([(a[i] @ b[j]) ** 2 for i in range(len(a)) for j in range(len(a)) if images[i] != images[j]]).mean()
    return (repel - 2 * attract) / mu


def dino_loop(students: list[Tensor], teachers: list[Tensor], centre: Tensor, ts: float, tt: float) -> Tensor:
    terms: list[Tensor] = []
    for t, teacher in enumerate(teachers):
        for s, student in enumerate(students):
            if s != t:
                p = torch.softmax((teacher.detach() - centre) / tt, dim=1)
                log_q = [torch.log_softmax(student[n] / ts, 0) for n in range(BATCH)]
                terms += [-torch.stack([p[n, k] * log_q[n][k] for k in range(SIZE)]).sum() for n in range(BATCH)]
    return torch.stack(terms).mean()


def clip_loop(images: Tensor, texts: Tensor, of: Tensor, scale: float) -> Tensor:
    losses = []
    for a, b in ((images, texts), (texts, images)):
        for i in range(len(a)):
            kept = [k for k in range(len(b)) if k == i or of[k] != of[i]]
            losses.append(-torch.log_softmax(torch.stack([scale * cos(a[i], b[k]) for k in kept]), 0)[kept.index(i)])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("images", [DISTINCT, COPIES], ids=["distinct", "copies"])
def test_losses_with_negatives_are_the_papers_loops_and_leave_copies_out(images: Tensor) -> None:
    z = z1, z2 = projections()
    same_value_and_gradient(lambda: nt_xent(z1, z2, images, 0.3), lambda: nt_xent_loop(z1, z2, images, 0.3), z)
    for mu in (0.5, 4.0, 100.0):  # all shortened, some, none
        same_value_and_gradient(
            lambda mu=mu: spectral_contrastive(z1, z2, images, mu), lambda mu=mu: spectral_loop(z1, z2, images, mu), z
        )
    scale = torch.tensor(4.0, dtype=torch.float64)
    same_value_and_gradient(lambda: image_text_info_nce(z1, z2, images, scale), lambda: clip_loop(z1, z2, images, 4.0), z)
    queue = F.normalize(projections(1, seed=5)[0].detach(), dim=1)
    queued = torch.tensor([-1, -1, 1, 9, 5, 1, 8])
    same_value_and_gradient(
        lambda: info_nce(z1, z2.detach(), queue, images, queued, 0.2),
        lambda: info_nce_loop(z1, z2.detach(), queue, images, queued, 0.2),
        z,
    )


def test_losses_without_negatives_are_the_papers_loops() -> None:
    z = z1, z2 = projections()
    same_value_and_gradient(lambda: barlow_twins(z1, z2, 0.0051), lambda: barlow_loop(z1, z2, 0.0051), z)
    same_value_and_gradient(lambda: vicreg(z1, z2, 25, 25, 1), lambda: vicreg_loop(z1, z2), z)
    t1, t2 = (row.detach() for row in projections(2, seed=3))
    same_value_and_gradient(
        lambda: regression(z1, z2),
        lambda: torch.stack([((a / a.norm() - b / b.norm()) ** 2).sum() for a, b in zip(z1, z2.detach(), strict=True)]).mean(),
        z,
    )
    same_value_and_gradient(
        lambda: negative_cosine(z1, z2),
        lambda: -torch.stack([cos(a, b) for a, b in zip(z1, z2.detach(), strict=True)]).mean(),
        z,
    )
    rows = projections(4)
    centre = projections(1, seed=9)[0].detach()[0]
    same_value_and_gradient(
        lambda: dino(rows, [t1, t2], centre, 0.1, 0.04), lambda: dino_loop(rows, [t1, t2], centre, 0.1, 0.04), rows
    )


# ------------------------------------------------------------------------------------------------------------- lightly


def test_values_are_lightlys() -> None:
    """Where lightly is right: it knows no copies of an image."""
    z1, z2 = (z.detach() for z in projections(2, seed=2))

    def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
        torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=0)

    close(nt_xent(z1, z2, DISTINCT, 0.5), lightly.NTXentLoss(temperature=0.5)(z1, z2))
    close(barlow_twins(z1, z2, 5e-3), lightly.BarlowTwinsLoss(lambda_param=5e-3)(z1, z2))
    close(negative_cosine(z1, z2), lightly.NegativeCosineSimilarity()(z1, z2))
    close(regression(z1, z2), 2 + 2 * lightly.NegativeCosineSimilarity()(z1, z2))
    close(vicreg(z1, z2, 25, 25, 1), lightly.VICRegLoss(25, 25, 1)(z1, z2), 1e-4)
    students = [z.detach().float() for z in projections(4)]
    teachers = [z.detach().float() for z in projections(2, seed=3)]
    theirs = lightly.DINOLoss(output_dim=SIZE, warmup_teacher_temp=0.04, teacher_temp=0.04, student_temp=0.1)
    close(dino(students, teachers, torch.zeros(SIZE), 0.1, 0.04), theirs(teachers, students, epoch=0), 1e-5)


# ---------------------------------------------------------------------------------------- constants and invariances


def test_hand_constants() -> None:
    same = torch.ones(BATCH, SIZE, dtype=torch.float64)
    assert nt_xent(same, same, DISTINCT, 0.2).item() == pytest.approx(math.log(2 * BATCH - 1), abs=1e-12)
    queue = F.normalize(torch.ones(12, SIZE, dtype=torch.float64), dim=1)
    elsewhere = torch.full((12,), -1)
    assert info_nce(same, same, queue, DISTINCT, elsewhere, 0.2).item() == pytest.approx(math.log(13), abs=1e-12)
    assert dino([same, same], [same, same], torch.zeros(SIZE), 0.1, 0.04).item() == pytest.approx(math.log(SIZE), abs=1e-12)
    scale = torch.tensor(14.0, dtype=torch.float64)
    assert image_text_info_nce(same, same, DISTINCT, scale).item() == pytest.approx(math.log(BATCH), abs=1e-12)


def test_what_must_not_matter_does_not() -> None:
    z1, z2 = (z.detach() for z in projections())
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    rotation = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64)).Q
    cases: list[tuple[Callable[[Tensor, Tensor], Tensor], list[tuple[Tensor, Tensor]]]] = [
        (lambda a, b: spectral_contrastive(a, b, DISTINCT, 2.0), [(z1 @ rotation, z2 @ rotation), (z1[order], z2[order])]),
        (lambda a, b: barlow_twins(a, b, 0.01), [(z1[order], z2[order]), (z2, z1)]),
        (lambda a, b: vicreg(a, b, 25, 25, 1), [(z1[order], z2[order]), (z2, z1), (z1 + 3, z2 + 3)]),
        (regression, [(3 * z1, 0.2 * z2), (z1 @ rotation, z2 @ rotation)]),
    ]
    for loss, others in cases:
        for other in others:
            torch.testing.assert_close(loss(*other), loss(z1, z2), atol=1e-10, rtol=0)
    # Barlow Twins: each dimension may have any scale and shift (but for epsilon, which is beside variances of about 1)
    large = 1e3 * torch.rand(SIZE, dtype=torch.float64) + 1e3
    torch.testing.assert_close(
        barlow_twins(1e3 * z1, 1e3 * z2, 0.01), barlow_twins(z1 * large + 5, z2 * large - 5, 0.01), atol=1e-8, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_of_full_precision(dtype: torch.dtype) -> None:
    z1, z2 = (100 * z.detach().to(dtype) for z in projections())
    queue = F.normalize(torch.ones(12, SIZE), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            nt_xent(z1, z2, DISTINCT, 0.01),
            info_nce(z1, z2, queue, DISTINCT, torch.full((12,), -1), 0.01),
            regression(z1, z2),
            negative_cosine(z1, z2),
            barlow_twins(z1, z2, 0.01),
            vicreg(z1, z2, 25, 25, 1),
            spectral_contrastive(z1, z2, DISTINCT, 1.0),
            dino([z1, z2], [z1, z2], torch.zeros(SIZE), 0.1, 0.04),
            image_text_info_nce(z1, z2, DISTINCT, torch.tensor(100.0)),
        ]
    for loss in losses:
        assert loss.dtype is torch.float32
        assert torch.isfinite(loss)


def test_captions_become_bytes_that_end_in_zeros() -> None:
    tokens = tokens_of(["a cat", "", "zebra crossing", "é"], 6)
    assert tokens.tolist() == [
        [97, 32, 99, 97, 116, 0],
        [0] * 6,
        list(b"zebra "),
        [0xC3, 0xA9, 0, 0, 0, 0],
    ]
