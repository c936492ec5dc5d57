"""CLIP: Learning Transferable Visual Models From Natural Language Supervision (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe
from adainf.augment.profiles import Views
from adainf.methods.method import Embedded, Method, full_precision, same_image
from adainf.models.backbones import Backbone
from adainf.runtime.distributed import gather_rows, rank

_LARGEST_SCALE = math.log(100)


def image_text_info_nce(images_bD: Tensor, texts_bD: Tensor, identities_b: Tensor, scale: Tensor) -> Tensor:
    """The mean of both cross entropies of scale * cos(image, text) (figure 3), each over the b local rows.

    Negatives are the other images and texts of the global batch except copies of the same image. `scale`: scalar, 1 / T.
    float32 scalar (float64 for float64). Exact for any world size: local rows against gathered rows.
    """
    with torch.autocast(images_bD.device.type, enabled=False):
        images, texts = F.normalize(full_precision(images_bD), dim=1), F.normalize(full_precision(texts_bD), dim=1)
        own = torch.arange(len(images), device=images.device) + rank() * len(images)
        copies = same_image(identities_b)
        not_negative = copies & (torch.arange(copies.shape[1], device=own.device) != own[:, None])
        directions = [(images, texts), (texts, images)]
        losses = [
            F.cross_entropy((scale * mine @ gather_rows(other).T).masked_fill(not_negative, float("-inf")), own)
            for mine, other in directions
        ]
        return torch.stack(losses).mean()


def tokens_of(texts: Sequence[str], length: int) -> NDArray[np.uint8]:
    """N x `length`: the first bytes of each caption in UTF-8, zeros after its end."""
    tokens = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(tokens, texts, strict=True):
        encoded = np.frombuffer(text.encode()[:length], np.uint8)
        row[: len(encoded)] = encoded
    return tokens


class TextTower(nn.Module):
    """A small transformer over bytes; the feature of a caption is the mean over its bytes. b x T → b x width."""

    def __init__(self, config: recipe.Clip) -> None:
        super().__init__()
        width = config.text_width
        self.token = nn.Embedding(256, width)
        self.position = nn.Parameter(0.01 * torch.randn(config.text_bytes, width))
        block = nn.TransformerEncoderLayer(
            width, config.text_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, config.text_layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, tokens_bT: Tensor) -> Tensor:
        empty = tokens_bT == 0
        empty[:, 0] = False  # attention over an empty sequence is NaN
        x = self.blocks(self.token(tokens_bT.long()) + self.position, src_key_padding_mask=empty)
        kept = (~empty)[:, :, None].to(x.dtype)
        return (x * kept).sum(1) / kept.sum(1)


class Clip(Method):
    """Image tower, text tower, a linear projection of each into the common space, and a learned temperature."""

    reads_text = True

    def __init__(self, backbone: Backbone, config: recipe.Clip) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.text = TextTower(config)
        self.image_projection = nn.Linear(backbone.num_features, config.projector_out, bias=False)
        self.text_projection = nn.Linear(config.text_width, config.projector_out, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def views(self, views: Views) -> Views:
        return views[:1]

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        """`views`: one view of the images, and the bytes of their captions, b x T."""
        images, tokens = views
        features = self.backbone(images)
        rows = (self.image_projection(features), self.text_projection(self.text(tokens)))
        return Embedded(rows, features.detach())

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        scale = self.log_scale.clamp(max=_LARGEST_SCALE).exp()
        return image_text_info_nce(rows[0], rows[1], identities_b, scale)
