"""Generator kind `gan`: the fit, and sampling by index."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf.generators.diffaugment import diff_augment
from adainf.generators.ema import update_ema
from adainf.generators.kind import DrawBatch, Fitted, GeneratorKind, check_size
from adainf.generators.noise import RowRandom, initial_noise
from adainf.generators.pixels import to_pixels
from adainf.models.gan import Discriminator, Generator, fits
from adainf.pipeline.serialization import flatten_optimizer, restore_optimizer, with_prefix, without_prefix
from adainf.recipe import Gan
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init
from adainf.shards.format.png import Pixels


def discriminator_loss(real_B: Tensor, generated_B: Tensor) -> Tensor:
    """-E[log s(D(real))] - E[log(1 - s(D(generated)))], s the logistic function (Goodfellow et al. 2014, equation 1)."""
    return F.softplus(-real_B).mean() + F.softplus(generated_B).mean()


def generator_loss(generated_B: Tensor) -> Tensor:
    """-E[log s(D(generated))]: non-saturating where D is confident (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-generated_B).mean()


def r1_penalty(discriminator: nn.Module, real_BCHW: Tensor) -> Tensor:
    """E[|grad_x D(x)|^2] / 2 at real images (Mescheder et al. 2018, arXiv 1801.04406, equation 9, without its gamma)."""
    real_BCHW = real_BCHW.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(real_BCHW).sum(), real_BCHW, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean() / 2


class Player:
    """One of the two networks with its optimiser."""

    def __init__(self, network: nn.Module, config: Gan) -> None:
        self.network = network
        self._parameters = list(network.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, config.learning_rate, betas=config.adam_betas)

    def descend(self, loss: Tensor, learning_rate: float) -> None:
        """Update this network only, whatever else the loss depends on."""
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.zero_grad()
        loss.backward(inputs=self._parameters)
        distributed.average_gradients(self._parameters)
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        return with_prefix("network", self.network.state_dict()) | flatten_optimizer(self._optimizer)

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.network.load_state_dict(without_prefix("network", tensors))
        restore_optimizer(self._optimizer, tensors)


class GanTrainer:
    """A `GeneratorTrainer`: both networks and the moving average of the generator.

    Its loss is the discriminator's, which is 2 ln 2 at equilibrium.
    """

    def __init__(self, config: Gan, images: Pixels, device: torch.device) -> None:
        self._config = config
        with seeded_init(config.seed):
            generator, discriminator = Generator(config, images.shape[1]), Discriminator(config, images.shape[1])
        self.generator = Player(generator.to(device), config)
        self.discriminator = Player(discriminator.to(device), config)
        self.average = copy.deepcopy(generator).requires_grad_(False)

    def step(self, step: int, clean_BCHW: Tensor, random: RowRandom) -> Tensor:
        config = self._config
        generator, discriminator = self.generator.network, self.discriminator.network
        autocast = torch.autocast(clean_BCHW.device.type, torch.bfloat16, enabled=config.precision == "bf16")

        def generate() -> Tensor:
            with autocast:
                images = generator(random.normal(config.latent))
            return diff_augment(images.float(), config.augment, random.uniform)

        def discriminate(x_BCHW: Tensor) -> Tensor:
            with autocast:
                logits = discriminator(x_BCHW)
            return logits.float()

        learning_rate = config.learning_rate * min((step + 1) / max(config.warmup_steps, 1), 1.0)
        if config.horizontal_flip:
            clean_BCHW = torch.where(random.uniform()[:, None, None, None] < 0.5, clean_BCHW.flip(3), clean_BCHW)
        real = diff_augment(clean_BCHW, config.augment, random.uniform)
        with torch.no_grad():
            generated = generate()
        loss = discriminator_loss(discriminate(real), discriminate(generated))
        penalised = loss
        if config.r1_gamma and step % config.r1_every_steps == 0:
            penalised = loss + config.r1_every_steps * config.r1_gamma * r1_penalty(discriminator, real)
        self.discriminator.descend(penalised, learning_rate)
        self.generator.descend(generator_loss(discriminate(generate())), learning_rate)
        update_ema(self.average, generator, config, step)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        players = with_prefix("generator", self.generator.state()) | with_prefix("discriminator", self.discriminator.state())
        return players | with_prefix("average", self.average.state_dict())

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.generator.load(without_prefix("generator", tensors))
        self.discriminator.load(without_prefix("discriminator", tensors))
        self.average.load_state_dict(without_prefix("average", tensors))

    def fitted(self) -> Fitted:
        return Fitted(dict(self.average.state_dict()), {})


def open_gan(config: Gan, fitted: Fitted, size_px: int, seed: int, device: torch.device) -> DrawBatch:
    """The sampler of a fitted GAN: one evaluation per image, from the latent of its index."""
    generator = Generator(config, size_px)
    generator.load_state_dict(fitted.weights)
    generator = generator.eval().to(device)

    @torch.no_grad()
    def draw(indices: range) -> Pixels:
        return to_pixels(generator(initial_noise(seed, indices, (config.latent,)).to(device))).cpu().numpy()

    return draw


def check_gan(config: Gan, section: str, images: int, height_px: int, width_px: int) -> None:
    """Raise `BadInput` where the settings at `section` do not fit the real images."""
    check_size(f"{section}.channels", fits(config, height_px, width_px), len(config.channels), height_px, width_px)


KIND = GeneratorKind(GanTrainer, open_gan, check_gan)
