"""How encoders are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adainf.recipe.augmentation import Augmentation
from adainf.recipe.methods import Method, SimClr
from adainf.recipe.sections import Fraction, NotNegative, Positive, PositiveInt, Precision, Rate, Section, Seed


class Backbone(Section):
    name: Literal["resnet18", "resnet34", "resnet50", "resnet-small", "vit-small", "vit-base"] = "resnet18"
    """ResNets of torchvision, ViT-S and ViT-B of timm, or `resnet-small`: three blocks, 32-64-128 channels, for CPUs."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """Of ResNets. `cifar`: 3x3 stride 1, no pooling. `imagenet`: 7x7 stride 2 and max-pooling."""
    stem_padding: int = Field(default=1, ge=0, le=3)
    """Padding of the stem's convolution. The paper's code uses 2 with the cifar stem; most others 1."""
    norm: Literal["batch", "group"] = "batch"
    """Of ResNets. `group` (Wu and He 2018) keeps images apart, which `chunk_images` needs."""
    patch_px: PositiveInt = 4
    """Of ViTs: height and width of a patch."""
    image_size_px: PositiveInt = 32
    """Of ViTs: the image size whose position embeddings are learned; those of other sizes are interpolated."""

    @model_validator(mode="after")
    def _patches_fit(self) -> Backbone:
        if self.image_size_px % self.patch_px:
            raise ValueError(f"needs image_size_px as a multiple of patch_px, not {self.image_size_px} and {self.patch_px}")
        return self


class Optimizer(Section):
    """Bias and normalisation parameters are neither decayed nor, by LARS, adapted."""

    kind: Literal["lars", "sgd", "adamw"] = "lars"
    """`lars` (You et al. 2017) over momentum SGD, momentum SGD alone, or AdamW (Loshchilov and Hutter 2019)."""
    learning_rate: Rate = 0.4
    """For the whole global batch; never scaled by the number of processes."""
    momentum: Fraction = 0.9
    """Of the velocity; AdamW's beta_1."""
    weight_decay: NotNegative = 1e-4
    """L2 penalty on weights of two or more dimensions; decoupled for AdamW."""
    weight_decay_end: NotNegative | None = None
    """At the last step, a cosine from `weight_decay` (DINO's 0.04 to 0.4); null keeps it."""
    gradient_clip: Positive | None = None
    """Largest norm of each parameter's gradient (DINO's 3.0); null does not clip."""
    trust_coefficient: Positive = 0.02
    """Eta of LARS: the step's size as a share of the weight's norm."""
    clip: bool = True
    """Never let LARS's adapted rate exceed `learning_rate`."""


class Stream(Section):
    """How training images come from their shards; see `adainf.shards.open_stream`."""

    window_shards: PositiveInt | None = None
    """Shuffle (at least) so many shards at a time, for sets whose decoded images do not fit the cache; null shuffles all."""
    damage: Literal["fail", "quarantine"] = "fail"
    """A damaged sample ends the stage, or has the next whole one in its place (at most one of a thousand)."""
    prefetch_batches: int = Field(default=2, ge=0, le=1000)
    """Batches that are made ahead; no part of the identity."""
    check_every_steps: PositiveInt = 1000
    """How often, after the first step, the processes compare which images they got; no part of the identity."""
    on_device: bool = False
    """Hold all training images on the device as uint8; no part of the identity."""


class Monitor(Section):
    """What the loop looks at beside the loss. Nothing in here changes an encoder."""

    online_probe: bool = False
    """Train a linear classifier on the detached features of labelled images, and log its accuracy on each new batch."""
    knn_every_steps: PositiveInt | None = None
    """How often to judge by nearest neighbours on the validation split; null never."""
    knn_images: PositiveInt = 5000
    """Most training images that are neighbours then."""
    tensorboard: str | None = None
    """Local folder for TensorBoard's event files (package tensorboard); null writes none."""


class Pretrain(Section):
    """Same steps, same global batch, same learning rate for every arm: the paper's fair-compute rule."""

    method: Method = SimClr()
    """The contrastive method."""
    backbone: Backbone = Backbone()
    """The network that is kept."""
    augmentation: Augmentation = Augmentation()
    """The default views."""
    optimizer: Optimizer = Optimizer()
    """How weights are updated."""
    stream: Stream = Stream()
    """How images are read."""
    steps: PositiveInt = 100_000
    """Optimiser steps of every arm, whatever the size of its data."""
    global_batch: Annotated[int, Field(ge=2)] = 512
    """Images (of two views each) per step over all processes."""
    warmup_fraction: Fraction = 0.01
    """Share of the steps with linear warm-up; cosine decay to zero after it."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """One encoder per arm and seed; the report gives mean and deviation over them."""
    precision: Precision = "no"
    """Of the networks' matrix products; losses are float32."""
    chunk_images: PositiveInt | None = None
    """Let only so many images of a process pass the networks at a time, for large batches in little memory; null all."""
    chunking: Literal["gradcache", "accumulate"] = "gradcache"
    """How chunks become one batch. `gradcache` (Gao et al. 2021): embed all, differentiate the loss of all, embed again;
    exact for every method. `accumulate`: sum the chunks' gradients; only for losses whose rows do not meet."""
    compile: bool = False
    """Let torch.compile make the backbone; needs a compiler, C++ on CPUs and C on GPUs, and the headers of Python."""
    monitor: Monitor = Monitor()
    """What is measured while it trains; no part of the identity."""
    checkpoint_every_steps: PositiveInt = 1000
    """Most steps that a kill can lose; no part of the identity."""
    log_every_steps: PositiveInt = 50
    """Steps between two points of the loss curve."""

    @model_validator(mode="after")
    def _seeds_are_distinct(self) -> Pretrain:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("holds a seed twice; list each seed once")
        return self
