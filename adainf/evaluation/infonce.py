"""InfoNCE of an encoder on held-out images, without labels, and its gap to training images (overfitting)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adainf.augment.profiles import Views
from adainf.augment.views import Hue, augment
from adainf.evaluation.intervals import NORMAL_QUANTILE
from adainf.evaluation.linear import epoch_order
from adainf.evaluation.scores import InfoNceGap
from adainf.models.encoder import Encoder
from adainf.runtime import distributed
from adainf.shards.format.png import Pixels

TEMPERATURE, BATCH, MOST_IMAGES = 0.2, 256, 2048
GAP_IMAGES = 512
"""Most images of either side of the gap, which every encoder gets: their views cost as much as features of 2,048 images."""
LEAST_IMAGES = 3
"""Per batch: the jackknife leaves one image out, and the others still need negatives."""


class InfoNce(NamedTuple):
    """In nats; lower is better."""

    loss: float
    standard_error: float
    """Over images."""


def infonce(encoder: Encoder, images: Pixels, views: Views, hue: Hue, device: torch.device, most: int = MOST_IMAGES) -> InfoNce:
    """InfoNCE of the encoder's features for two views of each image, in batches of 256.

    For large batches it is alignment plus uniformity (Wang and Isola 2020, theorem 1), so no weighting of the two is needed.
    Losses under different views are not comparable, so `views` must be the same for all encoders. All encoders get the same
    random views of the same images: at most `most`, by a fixed permutation, as sets may be sorted by class. An incomplete last
    batch is dropped, unless it is the only one.

    Every process of a launch calls this with the same images and gets the same bits: each batch is computed by one process.
    """
    encoder = encoder.to(device).eval()
    count = min(len(images), most)
    batch = min(BATCH, count)
    rows_MB = epoch_order(len(images), 0)[: count // batch * batch].reshape(-1, batch)
    found_M2 = torch.zeros(len(rows_MB), 2, dtype=torch.float64, device=device)
    for number in range(distributed.rank(), len(rows_MB), distributed.world_size()):
        images_BHWC = torch.from_numpy(np.ascontiguousarray(images[rows_MB[number]])).to(device)
        identities = torch.arange(number * batch, (number + 1) * batch, device=device)
        found_M2[number] = torch.stack(batch_infonce(*_embedded(encoder, images_BHWC, identities, views, hue)))
    loss, variance = distributed.all_reduce_sum(found_M2).mean(0).tolist()
    return InfoNce(loss, math.sqrt(variance / len(rows_MB)))


def infonce_gap(
    encoder: Encoder, train: Pixels, held_out: Pixels, views: Views, hue: Hue, device: torch.device
) -> InfoNceGap | None:
    """InfoNCE gap of equally many training and held-out images, with the same batch size and views; None if too few images."""
    count = min(len(train), len(held_out), GAP_IMAGES)
    if count < LEAST_IMAGES:
        return None
    seen, unseen = (infonce(encoder, images, views, hue, device, count) for images in (train, held_out))
    gap, batch = unseen.loss - seen.loss, min(BATCH, count)
    half = NORMAL_QUANTILE * math.hypot(seen.standard_error, unseen.standard_error)
    return InfoNceGap(
        images=count // batch * batch,
        batch=batch,
        temperature=TEMPERATURE,
        train=round(seen.loss, 6),
        held_out=round(unseen.loss, 6),
        gap=round(gap, 6),
        interval=(round(gap - half, 6), round(gap + half, 6)),
    )


def batch_infonce(z1_BD: Tensor, z2_BD: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE of the 2 B rows of a batch, and its jackknife variance over the images, as float64 scalars.

    The loss is NT-Xent (Chen et al. 2020, equation 1). Every image is a negative of all others, so the losses are dependent
    and their deviation underestimates the error. The jackknife leaves out each image with both its views.
    """
    batch = len(z1_BD)
    z = F.normalize(torch.cat([z1_BD, z2_BD]).double(), dim=1)
    logits = (z @ z.T - 1) / TEMPERATURE  # at most 0, so that exp does not overflow
    rows = torch.arange(2 * batch, device=z.device)
    positives = logits[rows, rows.roll(batch)]
    powers = logits.exp().fill_diagonal_(0)
    sums = powers.sum(1)
    loss = (sums.log() - positives).mean()
    sums_without = sums[:, None] - powers[:, :batch] - powers[:, batch:]
    own = rows[:, None] % batch == rows[:batch]
    losses_without = (sums_without.masked_fill(own, 1).log() - positives[:, None]).masked_fill(own, 0).sum(0) / (2 * batch - 2)
    return loss, losses_without.var(correction=0) * (batch - 1)


@torch.inference_mode()
def _embedded(encoder: Encoder, images_BHWC: Tensor, identities_B: Tensor, views: Views, hue: Hue) -> tuple[Tensor, Tensor]:
    """The features of two views of each image."""
    mean, std = encoder.normalisation.mean, encoder.normalisation.std
    one, other = augment(images_BHWC, identities_B, 0, 0, views[:2], mean, std, hue)
    return encoder.backbone(one), encoder.backbone(other)
