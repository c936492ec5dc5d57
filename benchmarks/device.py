"""What a recipe costs on this machine's device: steps of pretraining and of its generator's fit, and drawn images.

    python -m benchmarks.device [--recipe recipes/cifar10.yaml] [--size-px 32] [--seconds 20] [--json FILE]

Random images in place of the recipe's, its networks, batches and precision, on one device. Each figure is of all steps that
end within --seconds after a warm-up, the device waited for; hours are the recipe's own steps and images at that speed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from adainf.augment.profiles import default_views
from adainf.generators import generator_kind
from adainf.generators.batches import Batches
from adainf.models.encoder import Normalisation
from adainf.pipeline.load_recipe import load_recipe
from adainf.pretraining.loop import make_accelerator
from adainf.pretraining.trainer import Experiment, Trainer
from adainf.recipe import FittedGenerator, FittedKind, Pretrain
from adainf.runtime.determinism import default_device, memory_gib, prepare
from adainf.shards import Source, open_stream
from adainf.shards.format.png import Pixels
from benchmarks.common import header, machine, short, table
from tests.shards.sets import make_set

Figures = dict[str, float]
IMAGES, SHARD_IMAGES = 20_000, 2_000
WARM_STEPS, WAIT_EVERY_STEPS = 10, 5
"""Between two waits calls run ahead of the device, as they do in the stages."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.device", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="recipes/cifar10.yaml")
    parser.add_argument("--size-px", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    recipe, found = load_recipe(arguments.recipe), dict[str, Figures]()
    header([], [], quick=True)
    prepare(recipe.cpu_threads)
    with tempfile.TemporaryDirectory(prefix="adainf-bench") as scratch:
        made = make_set(str(Path(scratch) / "set"), IMAGES, SHARD_IMAGES, size_px=arguments.size_px)
        for name, on_device in (("pretrain", False), ("pretrain, on_device", True)):
            stream = recipe.pretrain.stream.model_copy(update={"on_device": on_device})
            found[name] = _pretrain(recipe.pretrain.model_copy(update={"stream": stream}), made.uri, arguments.seconds)
    for source in recipe.sources.values():
        if isinstance(source.generator, FittedGenerator):
            count = source.generate.images or 0
            found |= _generate(source.generator, count, made.images, arguments.seconds, source.label)
    rows = [
        [
            name,
            *[short(figures[key]) for key in ("images_per_s", "hours", "memory_gib")],
            ", ".join(f"{key.removesuffix('_pct')} {value:.0f} %" for key, value in figures.items() if key.endswith("_pct")),
        ]
        for name, figures in found.items()
    ]
    table(f"{recipe.name} on {machine()}", ["stage", "images/s", "hours", "GiB", "of a step"], rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")


def _pretrain(config: Pretrain, uri: str, seconds: float) -> Figures:
    with open_stream({"real": Source(uri)}, config.global_batch, 0) as stream:
        views, shares = default_views(config.augmentation), Figures()
        experiment = Experiment(config, 0, stream, views, Normalisation((0.5,) * 3, (0.25,) * 3))
        trainer = Trainer(experiment, make_accelerator(config))

        def wait() -> None:
            read = trainer.watch.read()
            shares.update({f"{name}_pct": 100 * read[name] / read["all"] for name in ("data", "augment", "model")})

        step_s = _step_s(trainer.step, seconds, wait)
    return _figures(config.steps, config.global_batch, step_s) | shares


def _generate(
    config: FittedKind, count: int, images: Pixels, seconds: float, label: Callable[[str], str]
) -> dict[str, Figures]:
    """Of the fit and of drawing `count` images."""
    device, kind, batch = default_device(), generator_kind(config), config.sampler.batch
    trainer, batches = kind.begin(config, images, device), Batches(config, images, device)
    fit = _figures(config.steps, config.batch, _step_s(lambda step: trainer.step(step, *batches.at(step)), seconds))
    draw = kind.open(config, trainer.fitted(), images.shape[1], config.seed, device)
    step_s = _step_s(lambda step: draw(range(step * batch, (step + 1) * batch)), seconds, warm_steps=1)
    return {label("fit"): fit, label("generate"): _figures(-(-count // batch), batch, step_s)}


def _step_s(
    step: Callable[[int], object], seconds: float, waited: Callable[[], None] = lambda: None, warm_steps: int = WARM_STEPS
) -> float:
    """Seconds of one step."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for done in range(warm_steps):
        step(done)
    _wait()
    waited()
    started, done = time.perf_counter(), warm_steps
    while (passed_s := time.perf_counter() - started) < seconds or done == warm_steps:
        for _ in range(WAIT_EVERY_STEPS):
            step(done)
            done += 1
        _wait()
    waited()
    return passed_s / (done - warm_steps)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _figures(steps: int, batch: int, step_s: float) -> Figures:
    return {"images_per_s": batch / step_s, "hours": steps * step_s / 3600, "memory_gib": memory_gib(default_device())}


if __name__ == "__main__":
    main()
