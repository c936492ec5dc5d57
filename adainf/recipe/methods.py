"""Settings of the contrastive methods: a class each, and the union that `pretrain.method` may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Fraction, NotNegative, Positive, PositiveInt, Probability, Section, Width


class SimClr(Section):
    """SimCLR (Chen et al. 2020): NT-Xent over all pairs of the global batch."""

    kind: Literal["simclr"] = "simclr"
    temperature: Positive = 0.2
    """T of NT-Xent."""
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of the projections that the loss compares."""


class MoCo(Section):
    """MoCo v2 (Chen et al. 2020) with the symmetric loss: keys of a slowly moving encoder against a queue of earlier ones."""

    kind: Literal["moco"]
    temperature: Positive = 0.2
    """T of InfoNCE."""
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of queries and keys."""
    queue: PositiveInt = 32_768
    """Keys that are kept as negatives."""
    momentum: Probability = 0.99
    """Of the key encoder's moving average, at the first step."""
    momentum_end: Probability = 0.999
    """At the last step; a cosine between."""
    norm_splits: PositiveInt = 8
    """Groups of the global batch that are batch-normalised apart, keys in another order than queries, so that statistics do
    not give the positives away; a multiple of the number of processes. 1 normalises over the global batch."""


class Byol(Section):
    """BYOL (Grill et al. 2020): predict the projection of a slowly moving teacher; no negatives."""

    kind: Literal["byol"]
    projector_hidden: Width = 4096
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of projections and predictions."""
    predictor_hidden: Width = 4096
    """Width of the predictor's hidden layer."""
    momentum: Probability = 0.99
    """Of the teacher's moving average, at the first step."""
    momentum_end: Probability = 1.0
    """At the last step; a cosine between."""


class SimSiam(Section):
    """SimSiam (Chen and He 2021): predict the other view's projection, whose gradient is stopped; no teacher."""

    kind: Literal["simsiam"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layers."""
    projector_out: Width = 2048
    """Size of the projections."""
    predictor_hidden: Width = 512
    """Width of the predictor's hidden layer."""


class BarlowTwins(Section):
    """Barlow Twins (Zbontar et al. 2021): the cross-correlation of the views' projections shall be the identity."""

    kind: Literal["barlow"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layers."""
    projector_out: Width = 2048
    """Size of the projections."""
    off_diagonal: NotNegative = 0.0051
    """Lambda: weight of the off-diagonal terms."""
    scale: Positive = 0.1
    """Factor of the whole loss."""


class VicReg(Section):
    """VICReg (Bardes et al. 2022): invariance, variance and covariance."""

    kind: Literal["vicreg"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layers."""
    projector_out: Width = 2048
    """Size of the projections."""
    invariance: NotNegative = 25.0
    """Weight of the squared distance between the views."""
    variance: NotNegative = 25.0
    """Weight of the hinge on each dimension's deviation."""
    covariance: NotNegative = 1.0
    """Weight of the squared off-diagonal covariances."""


class Spectral(Section):
    """The spectral contrastive loss (HaoChen et al. 2021), whose minimiser the paper's theory is about."""

    kind: Literal["spectral"]
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 1000
    """Size of the projections."""
    mu: Positive = 1.0
    """Square of the radius that projections are kept within."""


class Dino(Section):
    """DINO (Caron et al. 2021): a student matches a teacher's sharpened, centred assignment to prototypes, over many crops."""

    kind: Literal["dino"]
    projector_hidden: Width = 2048
    """Width of the head's hidden layers."""
    bottleneck: Width = 256
    """Size before the prototypes."""
    prototypes: Width = 4096
    """Size of the assignment."""
    student_temperature: Positive = 0.1
    """Of the student's softmax."""
    teacher_temperature: Positive = 0.04
    """Of the teacher's softmax, at the first step."""
    teacher_temperature_end: Positive = 0.07
    """After the warm-up, linear until then."""
    teacher_warmup_fraction: Fraction = 0.03
    """Share of the steps over which the teacher's temperature rises."""
    centre_momentum: Probability = 0.9
    """Of the moving average of the teacher's logits."""
    momentum: Probability = 0.9995
    """Of the teacher's moving average, at the first step."""
    momentum_end: Probability = 1.0
    """At the last step; a cosine between."""
    freeze_prototypes_fraction: Fraction = 0.01
    """Share of the steps, at the start, in which prototypes do not move."""
    local_crops: Annotated[int, Field(ge=0, le=64)] = 4
    """Small views beside the two large ones; only the student sees them."""
    local_size_px: PositiveInt = 16
    """Height and width of the small views."""
    local_min_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Least area of a small view, as a share of the image."""
    local_max_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Largest area of a small view."""

    @model_validator(mode="after")
    def _scales_ascend(self) -> Dino:
        if self.local_min_scale > self.local_max_scale:
            raise ValueError(
                f"needs local_min_scale of at most local_max_scale, not {self.local_min_scale:g} and {self.local_max_scale:g}"
            )
        return self


class Clip(Section):
    """CLIP (Radford et al. 2021): InfoNCE between images and their captions; every image needs one (a .txt in its shard)."""

    kind: Literal["clip"]
    projector_out: Width = 256
    """Size of the space that image and text share."""
    temperature: Positive = 0.07
    """Where the learned temperature starts."""
    text_width: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 128
    """Channels of the text tower, a transformer over UTF-8 bytes; a multiple of 8."""
    text_layers: Annotated[int, Field(ge=1, le=64)] = 2
    """Blocks of the text tower."""
    text_heads: Literal[1, 2, 4, 8] = 4
    """Attention heads of each block."""
    text_bytes: Annotated[int, Field(ge=1, le=4096)] = 77
    """Bytes of a caption that are read; what is longer is cut."""


Method = Annotated[
    SimClr | MoCo | Byol | SimSiam | BarlowTwins | VicReg | Spectral | Dino | Clip,
    Field(discriminator="kind"),
]
