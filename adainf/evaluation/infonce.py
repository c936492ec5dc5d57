"""How well an encoder tells held-out images apart, without labels."""

from __future__ import annotations

import numpy as np
import torch

from adainf.augment.profiles import Views
from adainf.augment.views import Hue, augment
from adainf.methods.simclr import nt_xent
from adainf.models.encoder import Encoder
from adainf.shards.png import Pixels

TEMPERATURE, BATCH, MOST_IMAGES = 0.2, 256, 2048


def held_out_infonce(encoder: Encoder, images: Pixels, views: Views, hue: Hue, device: torch.device) -> float:
    """InfoNCE in nats of the encoder's own features for two views of each image, in batches of 256; less is better.

    As batches grow it is alignment plus uniformity (Wang and Isola 2020, theorem 1), so it needs no choice of how much each
    counts. Losses under different views cannot be compared, so `views` must be the same for all encoders. The draws are the
    same for all, too. Of a last batch that is not full the images are left out, unless there is no other.
    """
    encoder = encoder.to(device).eval()
    normalisation, batch = encoder.normalisation, min(BATCH, len(images))
    losses = []
    with torch.inference_mode():
        for first in range(0, min(len(images), MOST_IMAGES) - batch + 1, batch):
            images_BHWC = torch.from_numpy(np.ascontiguousarray(images[first : first + batch])).to(device)
            identities = torch.arange(first, first + batch, device=device)
            two = augment(images_BHWC, identities, 0, 0, views[:2], normalisation.mean, normalisation.std, hue)
            one, other = (encoder.backbone(view).float() for view in two)
            losses.append(float(nt_xent(one, other, identities, TEMPERATURE)))
    return float(np.mean(losses))
