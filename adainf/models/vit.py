"""Vision transformers of timm."""

from __future__ import annotations

import timm
from torch import Tensor

from adainf import recipe
from adainf.models.backbones import Backbone

_MODELS = {"vit-small": "vit_small_patch16_224", "vit-base": "vit_base_patch16_224"}


class Vit(Backbone):
    """A vision transformer of timm; its features are those of the class token. `model` has timm's parameter names."""

    def __init__(self, config: recipe.Backbone) -> None:
        super().__init__()
        self.model = timm.create_model(
            _MODELS[config.name],
            pretrained=False,
            num_classes=0,
            img_size=config.image_size_px,
            patch_size=config.patch_px,
            dynamic_img_size=True,  # small crops, and images of other sizes
        )
        self.num_features = int(self.model.num_features)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        features: Tensor = self.model(x_BCHW)
        return features
