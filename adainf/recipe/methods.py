"""Settings of the contrastive methods: one class per method, and their union, which is the registry of methods.

They are not in `adainf/methods/NAME.py`, because a recipe must load without torch. docs/extending.md adds a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Fraction, NotNegative, Positive, PositiveInt, Probability, Section, Width


class MethodSettings(Section):
    """Base class of the settings of a method."""

    implementation: ClassVar[str]
    """Its `adainf.methods.method.Method`, "module:class"."""
    aligns_third_view: ClassVar[bool] = False
    """Whether `positives.use.kind: add` works: its loss compares the projections of `Method.projection` directly."""


class SimClr(MethodSettings):
    """SimCLR (Chen et al. 2020): NT-Xent over all pairs of the global batch."""

    implementation = "adainf.methods.simclr:SimClr"
    aligns_third_view = True
    kind: Literal["simclr"] = "simclr"
    temperature: Positive = 0.2
    """T of NT-Xent."""
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of the projections that the loss compares."""


class MoCo(MethodSettings):
    """MoCo v2 (Chen et al. 2020) with the symmetric loss: keys of a momentum encoder against a queue of earlier keys."""

    implementation = "adainf.methods.moco:MoCo"
    aligns_third_view = True
    kind: Literal["moco"]
    temperature: Positive = 0.2
    """T of InfoNCE."""
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of queries and keys."""
    queue: PositiveInt = 32_768
    """Size of the queue of negatives."""
    momentum: Probability = 0.99
    """Of the moving average of the key encoder, at the first step."""
    momentum_end: Probability = 0.999
    """At the last step; cosine schedule between."""
    norm_splits: PositiveInt = 8
    """Groups of the global batch with separate batch normalisation. Keys are shuffled between groups, so that statistics do
    not leak the positives. A multiple of the number of processes; 1 normalises over the global batch."""


class Byol(MethodSettings):
    """BYOL (Grill et al. 2020): predict the projection of a momentum teacher; no negatives."""

    implementation = "adainf.methods.byol:Byol"
    kind: Literal["byol"]
    projector_hidden: Width = 4096
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of projections and predictions."""
    predictor_hidden: Width = 4096
    """Width of the predictor's hidden layer."""
    momentum: Probability = 0.99
    """Of the moving average of the teacher, at the first step."""
    momentum_end: Probability = 1.0
    """At the last step; cosine schedule between."""


class SimSiam(MethodSettings):
    """SimSiam (Chen and He 2021): predict the projection of the other view, with stop-gradient; no teacher."""

    implementation = "adainf.methods.simsiam:SimSiam"
    kind: Literal["simsiam"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layers."""
    projector_out: Width = 2048
    """Size of the projections."""
    predictor_hidden: Width = 512
    """Width of the predictor's hidden layer."""


class BarlowTwins(MethodSettings):
    """Barlow Twins (Zbontar et al. 2021): make the cross-correlation of the projections of both views the identity."""

    implementation = "adainf.methods.barlow:BarlowTwins"
    aligns_third_view = True
    kind: Literal["barlow"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layers."""
    projector_out: Width = 2048
    """Size of the projections."""
    off_diagonal: NotNegative = 0.0051
    """Lambda: weight of the off-diagonal terms."""
    scale: Positive = 0.1
    """Factor of the loss."""


class VicReg(MethodSettings):
    """VICReg (Bardes et al. 2022): invariance, variance and covariance."""

    implementation = "adainf.methods.vicreg:VicReg"
    aligns_third_view = True
    kind: Literal["vicreg"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layers."""
    projector_out: Width = 2048
    """Size of the projections."""
    invariance: NotNegative = 25.0
    """Weight of the squared distance between the views."""
    variance: NotNegative = 25.0
    """Weight of the hinge on the standard deviation of each dimension."""
    covariance: NotNegative = 1.0
    """Weight of the squared off-diagonal covariances."""


class Spectral(MethodSettings):
    """Spectral contrastive loss (HaoChen et al. 2021); the paper's theory is about its minimiser."""

    implementation = "adainf.methods.spectral:Spectral"
    aligns_third_view = True
    kind: Literal["spectral"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 1000
    """Size of the projections."""
    mu: Positive = 1.0
    """Square of the maximum norm of projections."""


class Dino(MethodSettings):
    """DINO (Caron et al. 2021): a student predicts a teacher's sharpened, centred assignment to prototypes, with multi-crop."""

    implementation = "adainf.methods.dino:Dino"
    kind: Literal["dino"]
    projector_hidden: Width = 2048
    """Width of the head's hidden layers."""
    bottleneck: Width = 256
    """Dimensions of the input of the prototypes."""
    prototypes: Width = 4096
    """Number of prototypes."""
    student_temperature: Positive = 0.1
    """Of the student's softmax."""
    teacher_temperature: Positive = 0.04
    """Of the teacher's softmax, at the first step."""
    teacher_temperature_end: Positive = 0.07
    """After a linear warm-up."""
    teacher_warmup_fraction: Fraction = 0.03
    """Fraction of the steps with warm-up of the teacher's temperature."""
    centre_momentum: Probability = 0.9
    """Of the moving average of the teacher's logits (the centre)."""
    momentum: Probability = 0.9995
    """Of the moving average of the teacher, at the first step."""
    momentum_end: Probability = 1.0
    """At the last step; cosine schedule between."""
    freeze_prototypes_fraction: Fraction = 0.01
    """Fraction of the steps, at the start, with frozen prototypes."""
    local_crops: Annotated[int, Field(ge=0, le=64)] = 4
    """Number of small views in addition to the two large ones; for the student only."""
    local_size_px: PositiveInt = 16
    """Height and width of the small views."""
    local_min_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Minimum area of a small view, as a fraction of the image."""
    local_max_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Maximum area of a small view."""

    @model_validator(mode="after")
    def _scales_ascend(self) -> Dino:
        if self.local_min_scale > self.local_max_scale:
            raise ValueError(
                f"needs local_min_scale <= local_max_scale, not {self.local_min_scale:g} and {self.local_max_scale:g}; lower "
                "local_min_scale"
            )
        return self


class Clip(MethodSettings):
    """CLIP (Radford et al. 2021): InfoNCE between images and captions; every image needs a caption (a .txt in its shard)."""

    implementation = "adainf.methods.clip:Clip"
    kind: Literal["clip"]
    projector_out: Width = 256
    """Dimensions of the common space of images and texts."""
    temperature: Positive = 0.07
    """Initial value of the learned temperature."""
    text_width: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 128
    """Channels of the text tower, a transformer over UTF-8 bytes; a multiple of 8."""
    text_layers: Annotated[int, Field(ge=1, le=64)] = 2
    """Blocks of the text tower."""
    text_heads: Literal[1, 2, 4, 8] = 4
    """Attention heads of each block."""
    text_bytes: Annotated[int, Field(ge=1, le=4096)] = 77
    """Maximum length of a caption in bytes; longer captions are truncated."""


Method = Annotated[
    SimClr | MoCo | Byol | SimSiam | BarlowTwins | VicReg | Spectral | Dino | Clip,
    Field(discriminator="kind"),
]


DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "moco": {"optimizer": {"kind": "sgd", "learning_rate": 0.3}},
    "byol": {
        "optimizer": {"kind": "lars", "learning_rate": 1.0, "weight_decay": 1e-5},
        "augmentation": {"family": "asymmetric"},
    },
    "simsiam": {"optimizer": {"kind": "sgd", "learning_rate": 0.5, "weight_decay": 1e-5}},
    "barlow": {"optimizer": {"kind": "lars", "learning_rate": 0.3}, "augmentation": {"family": "asymmetric"}},
    "vicreg": {"augmentation": {"family": "asymmetric"}},
    "spectral": {"optimizer": {"kind": "sgd", "learning_rate": 0.06, "weight_decay": 5e-4}},
    "dino": {"optimizer": {"kind": "lars", "learning_rate": 0.3, "weight_decay": 1e-6}},
}
"""Kind → defaults of `pretrain.optimizer` and `pretrain.augmentation` that differ from SimCLR's; sources in docs/methods.md."""


def defaults_of(method: Any) -> Mapping[str, Mapping[str, Any]]:
    """`DEFAULTS` of a method, given as settings or as in a recipe; nothing for what is not a method."""
    kind = method.get("kind") if isinstance(method, dict) else getattr(method, "kind", None)
    return DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}
