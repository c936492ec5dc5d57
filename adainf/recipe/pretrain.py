"""How encoders are pretrained, and the registry of backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from adainf.recipe.augmentation import Augmentation
from adainf.recipe.methods import Method, SimClr, defaults_of
from adainf.recipe.sections import Fraction, NotNegative, Positive, PositiveInt, Precision, Rate, Section, Seed

BACKBONES = {
    "resnet18": "adainf.models.resnet:build_resnet",
    "resnet34": "adainf.models.resnet:build_resnet",
    "resnet50": "adainf.models.resnet:build_resnet",
    "resnet-small": "adainf.models.resnet:build_resnet",
    "vit-small": "adainf.models.vit:Vit",
    "vit-base": "adainf.models.vit:Vit",
}
"""Name → function of `Backbone` that returns an `adainf.models.backbones.Backbone`. docs/extending.md adds one."""

if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[tuple(BACKBONES)]


class Backbone(Section):
    """The network that is kept after pretraining."""

    name: BackboneName = "resnet18"
    """ResNets of torchvision, ViT-S and ViT-B of timm, or `resnet-small`: three blocks, 32-64-128 channels, for CPUs."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """Of ResNets. `cifar`: 3x3 convolution of stride 1, no pooling. `imagenet`: 7x7 of stride 2 and max-pooling."""
    stem_padding: int = Field(default=1, ge=0, le=3)
    """Padding of the stem's convolution. The paper's code uses 2 with the cifar stem; most others use 1."""
    norm: Literal["batch", "group"] = "batch"
    """Of ResNets. `group` (Wu and He 2018) normalises each image separately, as `chunk_images` requires."""
    patch_px: PositiveInt = 4
    """Of ViTs: height and width of a patch."""
    image_size_px: PositiveInt = 32
    """Of ViTs: image size of the learned position embeddings; they are interpolated for other sizes."""

    @model_validator(mode="after")
    def _patches_fit(self) -> Backbone:
        if self.image_size_px % self.patch_px:
            raise ValueError(
                f"needs image_size_px as a multiple of patch_px, not {self.image_size_px} and {self.patch_px}; change one"
            )
        return self


class Optimizer(Section):
    """The optimiser. Biases and normalisation parameters have no weight decay and, in LARS, no trust ratio.

    Where `kind` is not set, kind, learning rate and weight decay default to those of the method (docs/methods.md); the defaults
    here are SimCLR's.
    """

    kind: Literal["lars", "sgd", "adamw"] = "lars"
    """`lars` (You et al. 2017) on top of momentum SGD, `sgd` with momentum, or `adamw` (Loshchilov and Hutter 2019)."""
    learning_rate: Rate = 0.4
    """For the global batch; not scaled by the number of processes."""
    momentum: Fraction = 0.9
    """Of SGD and LARS; beta_1 of AdamW."""
    weight_decay: NotNegative = 1e-4
    """L2 penalty on weights of two or more dimensions; decoupled for AdamW."""
    weight_decay_end: NotNegative | None = None
    """At the last step, with a cosine schedule from `weight_decay` (DINO: 0.04 to 0.4); null keeps it constant."""
    gradient_clip: Positive | None = None
    """Maximum norm of the gradient of each parameter (DINO: 3.0); null does not clip."""
    trust_coefficient: Positive = 0.02
    """Eta of LARS: norm of the update relative to the norm of the weight."""
    clip: bool = True
    """Limit the local learning rate of LARS to `learning_rate`."""


class Stream(Section):
    """How training images are read from their shards; see `adainf.shards.open_stream`."""

    window_shards: PositiveInt | None = None
    """Minimum shards per shuffle window, for sets whose decoded images exceed the cache; null shuffles all shards."""
    damage: Literal["fail", "quarantine"] = "fail"
    """On a corrupt sample: `fail` the stage, or `quarantine` and use the next intact one (at most 1 in 1,000 samples)."""
    prefetch_batches: int = Field(default=2, ge=0, le=1000)
    """Batches prefetched; not part of the request."""
    check_every_steps: PositiveInt = 1000
    """Interval at which the processes compare their images, after the first step; not part of the request."""
    on_device: bool = False
    """Keep all training images on the device as uint8; not part of the request."""


class Monitor(Section):
    """Metrics of the training loop beside the loss. Nothing in here changes an encoder."""

    online_probe: bool = False
    """Train a linear classifier on the detached features of labelled images, and log its accuracy on each batch."""
    knn_every_steps: PositiveInt | None = None
    """Interval of the nearest-neighbour accuracy on the validation split; null never measures it."""
    knn_images: PositiveInt = 5000
    """Maximum number of training images among which neighbours are searched."""
    tensorboard: str | None = None
    """Local folder of TensorBoard event files (package tensorboard); null writes none."""


class Pretrain(Section):
    """Every arm has the same steps, global batch and learning rate: the paper's fair-compute rule."""

    added_later: ClassVar[frozenset[str]] = frozenset({"bn_recalibrate"})
    method: Method = SimClr()
    """The contrastive method."""
    backbone: Backbone = Backbone()
    """The encoder network."""
    augmentation: Augmentation = Augmentation()
    """The default augmentation."""
    optimizer: Optimizer = Optimizer()
    """How weights are updated."""
    stream: Stream = Stream()
    """How images are read."""
    steps: PositiveInt = 100_000
    """Optimiser steps of every arm, independent of the size of its data."""
    global_batch: Annotated[int, Field(ge=2)] = 512
    """Images per step over all processes; each has two views."""
    warmup_fraction: Fraction = 0.01
    """Fraction of the steps with linear warm-up; cosine decay to zero follows."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """One encoder per arm and seed; the report shows mean and standard deviation over seeds."""
    precision: Precision = "no"
    """Of the networks' matrix products; losses are float32."""
    chunk_images: PositiveInt | None = None
    """Images per forward pass and process, for large batches in little memory; null passes all at once."""
    chunking: Literal["gradcache", "accumulate"] = "gradcache"
    """How the chunks of a batch are combined. `gradcache` (Gao et al. 2021): embed all, differentiate the loss of all, embed
    again; exact for every method. `accumulate`: sum the gradients of the chunks; only for losses that are means over rows."""
    bn_recalibrate: bool = False
    """Recompute the statistics of batch normalisation on real training images at the end; weights do not change."""
    compile: bool = False
    """Compile the backbone by torch.compile; needs a C++ compiler on CPUs, C on GPUs, and the headers of Python."""
    monitor: Monitor = Monitor()
    """What is measured during training; not part of the request."""
    checkpoint_every_steps: PositiveInt = 1000
    """Maximum number of steps that a kill loses; not part of the request."""
    log_every_steps: PositiveInt = 50
    """Interval of log lines and points of the loss curve."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults_of_the_method(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        filled = dict(given)
        for section, values in defaults_of(given.get("method")).items():
            settings = given.get(section, {})
            if isinstance(settings, dict) and not (section == "optimizer" and "kind" in settings):
                filled[section] = {**values, **settings}
        return filled

    @model_validator(mode="after")
    def _seeds_are_distinct(self) -> Pretrain:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("contains a seed twice in seeds; list each seed once")
        return self
