"""The recipe: one YAML file is one experiment. Every field, its unit and its default are here.

``adainf recipe schema`` prints this as JSON Schema, ``adainf recipe show RECIPE`` a recipe with all defaults filled in.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Arm = Literal["none", "vanilla", "adainf"]
"""`none`: real images only. `vanilla`: real and generated, weight 1 each. `adainf`: as the plan says."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1e30)]  # float32 holds it: a foolish one fails in training, not in a library
Width = Annotated[int, Field(ge=1, le=65_536)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Precision = Literal["no", "bf16", "fp16"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


# ------------------------------------------------------------------------------------------------------------- real


class _Real(_Section):
    image_size_px: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Resize (bilinear, after a centre crop to a square) to this height and width; null keeps the images' own size."""
    validation_fraction: Fraction = 0.1
    """Share of the training images held out for decisions; the test split is read by `evaluate` alone."""
    split_seed: Seed = 0
    """Seed of the permutation that carves the held-out splits."""
    train_limit_images: PositiveInt | None = None
    """Keep only so many training images (chosen by `split_seed`); null keeps all. The paper's half CIFAR-10 is 25000."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard."""


class _RealWithPath(_Real):
    path: str
    """Folder or file with the data. Not part of the run's identity: the same images elsewhere are the same experiment."""


class _OwnTest(_Section):
    test_fraction: Fraction = 0.2
    """Share of all images set apart as the test split, as the source has none of its own."""


class Digits(_Real, _OwnTest):
    """The 1,797 handwritten digits, 8x8 grey, that scikit-learn carries."""

    kind: Literal["digits"]


class FashionMnist(_Real):
    """Fashion-MNIST: 60,000 + 10,000 images, 28x28 grey, as the four IDX .gz files."""

    kind: Literal["fashion-mnist"]
    path: str = "/usr/share/datasets/fashion-mnist"
    """Folder with the four files (Debian's package dataset-fashion-mnist puts them there), or torchvision's root."""


class Cifar(_RealWithPath):
    """CIFAR-10 or CIFAR-100 through torchvision: 50,000 + 10,000 images, 32x32 RGB."""

    kind: Literal["cifar10", "cifar100"]
    download: bool = False
    """Let torchvision download the archive when it is not under `path`."""


class ImageFolder(_RealWithPath, _OwnTest):
    """A folder of images; sub-folders are classes. With `train/` and `test/` (or `val/`) inside, those are the splits."""

    kind: Literal["folder"]


class Npz(_RealWithPath, _OwnTest):
    """A .npz with `image` (uint8, N x H x W x 3, RGB) and, if there are labels, `label` (integers; -1 is none)."""

    kind: Literal["npz"]


class Shards(_RealWithPath, _OwnTest):
    """Existing WebDataset tar shards: a folder of .tar files whose samples hold an image and, if labelled, a .cls."""

    kind: Literal["shards"]


Real = Annotated[Digits | FashionMnist | Cifar | ImageFolder | Npz | Shards, Field(discriminator="kind")]

# -------------------------------------------------------------------------------------------------------- generator


class Unet(_Section):
    channels: Width = 32
    """Channels at full resolution; a multiple of 8."""
    multipliers: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2, 2)
    """Channel multiplier at each resolution, from full downward; each further one halves the image."""
    attention_below_px: int = 8
    """Self-attention where the feature map is at most this wide; 0 for none."""


class HeunSampler(_Section):
    """EDM's deterministic second-order sampler (Karras et al. 2022, algorithm 1)."""

    steps: PositiveInt = 18
    """Noise levels; costs 2 x steps - 1 evaluations of the network."""
    sigma_min: Positive = 0.002
    """Least noise level, in units of images in -1..1."""
    sigma_max: Positive = 80.0
    """Noise level that sampling starts from."""
    rho: Annotated[float, Field(ge=1, le=100)] = 7.0
    """Exponent of the levels' spacing (equation 5); larger puts more of them at low noise."""
    batch: PositiveInt = 256
    """Images sampled together. Part of the identity: another batch size may differ in the last bit."""

    @model_validator(mode="after")
    def _levels_descend(self) -> HeunSampler:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"needs sigma_min below sigma_max, not {self.sigma_min:g} and {self.sigma_max:g}")
        return self


class EdmGenerator(_Section):
    """Diffusion with EDM preconditioning, fitted on the real training images only, without labels."""

    kind: Literal["edm"]
    unet: Unet = Unet()
    """The network; wide ones want a GPU."""
    steps: PositiveInt
    """Optimiser steps of the fit."""
    batch: PositiveInt = 128
    """Images per optimiser step."""
    learning_rate: Rate = 1e-3
    """Of Adam, constant after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Linear warm-up of the learning rate."""
    ema_half_life_images: PositiveInt = 500_000
    """Half-life of the weights' moving average, in training images; shorter at the start (EDM's ramp-up of 5 %)."""
    noise_log_mean: float = -1.2
    """P_mean of ln(sigma) in training (Karras et al. 2022, table 1)."""
    noise_log_std: Positive = 1.2
    """P_std of ln(sigma) in training."""
    horizontal_flip: bool = False
    """Fit on mirrored images too."""
    precision: Literal["no", "bf16"] = "no"
    """Of the network's matrix products; the loss is float32."""
    checkpoint_every_steps: PositiveInt = 1000
    """Most steps that a kill can lose; no part of the identity."""
    seed: Seed = 0
    """Of initial weights, order of images and noise."""
    sampler: HeunSampler = HeunSampler()
    """How `generate` samples; no part of the fit."""


class Provenance(_Section):
    """What the user declares about images that the run did not generate itself; copied into manifest and report."""

    generator: str
    """Name of the generative model, for example "STF (Xu et al. 2023), NCSN++"."""
    trained_on: str
    """The images it was fitted on, for example "CIFAR-10 train, the 50,000 images of this recipe"."""
    used_labels: bool
    """Whether labels were used in fitting, sampling or filtering; the method's claim needs false."""
    source: str = ""
    """Where the images came from: address, date, licence."""


class ImportedImages(_Section):
    """Images that exist already take the place of `fit` and `generate`."""

    kind: Literal["import"]
    format: Literal["npz", "shards", "folder"]
    """What lies at `path`."""
    path: str
    """The .npz (`image` uint8 N x H x W x 3), the folder of tar shards, or the image folder. Not part of the identity."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order in which the file holds the channels; an order that contradicts the real images' means is refused."""
    provenance: Provenance
    """Where the images came from, as the user declares it."""


Generator = Annotated[EdmGenerator | ImportedImages, Field(discriminator="kind")]


class Generate(_Section):
    images: PositiveInt | None = None
    """How many images to generate; null takes all of an import, and is refused for a fitted generator."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard; also the most that an interruption can lose."""
    seed: Seed = 0
    """Image i is a function of the generator, this seed and i alone."""


# ------------------------------------------------------------------------------------------------- plan, augmentation


class Plan(_Section):
    reference_images: Annotated[int, Field(ge=1, le=10**12)] = 50_000
    """The data size at which the base augmentation's min crop scale (0.08) is right; the paper's is CIFAR-10's 50,000."""
    augmentation_rule: Literal["recipe", "crop_only"] = "recipe"
    """`recipe`: crop up to 0.20 together with weaker jitter, as the paper ships; `crop_only`: crop up to 0.30."""
    max_generated_share: Annotated[float, Field(ge=0.01, le=0.99)] = 0.8
    """Most of a batch that may be generated, for the `adainf` arm."""


class Augmentation(_Section):
    """The default profile, used as it stands by `none` and `vanilla` and weakened by the plan for `adainf`."""

    family: Literal["symmetric", "asymmetric"] = "symmetric"
    """`symmetric`: SimCLR, MoCo v2. `asymmetric`: BYOL, Barlow Twins (no blur, second view solarised)."""
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Least area of a random resized crop, as a share of the image."""
    jitter_probability: Probability = 0.8
    """Of colour jitter (brightness, contrast, saturation, hue)."""
    grayscale_probability: Probability = 0.2
    """Of dropping the colour."""
    blur_probability: Probability = 0.5
    """Of Gaussian blur, sigma 0.1 to 2 px; symmetric family only."""
    flip_probability: Probability = 0.5
    """Of a horizontal flip; set 0 where mirroring changes what an image is, as for digits."""


# --------------------------------------------------------------------------------------------------------- pretrain


class SimClr(_Section):
    """SimCLR (Chen et al. 2020): NT-Xent over all pairs of the global batch."""

    kind: Literal["simclr"] = "simclr"
    temperature: Positive = 0.2
    """T of NT-Xent."""
    projector_hidden: Width = 2048
    """Width of the projector's hidden layer."""
    projector_out: Width = 256
    """Size of the projections that the loss compares."""


class Backbone(_Section):
    name: Literal["resnet18", "resnet-small"] = "resnet18"
    """`resnet18`, or `resnet-small`: three blocks, 32-64-128 channels, for CPUs."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """`cifar`: 3x3 stride 1, no pooling. `imagenet`: 7x7 stride 2 and max-pooling."""
    stem_padding: int = Field(default=1, ge=0, le=3)
    """Padding of the stem's convolution. The paper's code uses 2 with the cifar stem; most others 1."""


class Optimizer(_Section):
    """LARS (You et al. 2017) over momentum SGD; bias and normalisation parameters are neither adapted nor decayed."""

    learning_rate: Rate = 0.4
    """For the whole global batch; never scaled by the number of processes."""
    momentum: Fraction = 0.9
    """Of the velocity."""
    weight_decay: NotNegative = 1e-4
    """L2 penalty on weights of two or more dimensions."""
    trust_coefficient: Positive = 0.02
    """Eta of LARS: the step's size as a share of the weight's norm."""
    clip: bool = True
    """Never let the adapted rate exceed `learning_rate`."""


class Stream(_Section):
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


class Pretrain(_Section):
    """Same steps, same global batch, same learning rate for every arm: the paper's fair-compute rule."""

    method: SimClr = SimClr()
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
    checkpoint_every_steps: PositiveInt = 1000
    """Most steps that a kill can lose; no part of the identity."""
    log_every_steps: PositiveInt = 50
    """Steps between two points of the loss curve."""

    @model_validator(mode="after")
    def _seeds_are_distinct(self) -> Pretrain:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("holds a seed twice; list each seed once")
        return self


# --------------------------------------------------------------------------------------------------------- evaluate


class Evaluate(_Section):
    """One protocol for all arms: frozen backbone, features of the un-augmented images, probes fitted on train labels."""

    knn_neighbours: PositiveInt = 20
    """Nearest training images, by cosine, that vote."""
    l2_grid: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """L2 penalties (per image) of the linear probe that the validation split chooses from."""
    batch: PositiveInt = 512
    """Images whose features are computed together; no part of the identity."""


class Recipe(_Section):
    """One experiment, from real images to a judged encoder."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    """Lower-case letters, digits and hyphens; the run's default folder is runs/NAME."""
    real: Real
    """The real images: `kind` says where they come from."""
    generator: Generator
    """The generator to fit (`kind: edm`), or images that exist already (`kind: import`)."""
    generate: Generate = Generate()
    """How many images to generate, and how they are stored."""
    plan: Plan = Plan()
    """How weight and augmentation of arm `adainf` are chosen."""
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("none", "vanilla", "adainf")
    """Which encoders to pretrain and judge."""
    pretrain: Pretrain = Pretrain()
    """How the encoders are trained."""
    evaluate: Evaluate = Evaluate()
    """How the encoders are judged."""
    cpu_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of the numerical libraries; null leaves them alone. Fixing it makes CPU results the same on any number of
    cores."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if len(set(self.arms)) != len(self.arms):
            raise ValueError("arms holds an arm twice; list each arm once")
        if self.generate.images is None and not isinstance(self.generator, ImportedImages):
            raise ValueError("generate.images is missing; set how many images to generate")
        return self

    @property
    def uses_generated(self) -> bool:
        """Whether any arm needs generated images."""
        return any(arm != "none" for arm in self.arms)
