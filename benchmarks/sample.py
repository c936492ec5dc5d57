"""Images per second of each sampler, and of our sampling beside diffusers' own pipelines.

    python -m benchmarks.sample [--quick] [--json FILE] [--fitted RECIPE RUN]

Some ten minutes of one core (one with --quick), with --fitted half an hour more. Equal work: the same `UNet2DModel` with fresh
weights, the same steps, float32. Equal quality, with --fitted, a run whose generator has objective ddpm: the same weights, the
fastest of our settings that is as good as a pipeline's default, by Fréchet distance and coverage against the run's validation
images. 1,000 images of 1,000 steps take long: fit on 16 x 16 px. The sides in turn, each in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.child import Values
from benchmarks.common import Job, header, median, run, short, spread, table

Setting = tuple[str, int]
"""A sampler and its steps."""
SIDES = ("ours", "diffusers")
EQUAL_WORK: list[Setting] = [("ddim", 10), ("ancestral", 10)]
SAMPLERS: dict[Setting, str] = {("heun", 18): "edm", ("dpmpp2m", 10): "edm", ("ddim", 50): "ddpm", ("ancestral", 1000): "ddpm"}
"""Each with the objective that it is used with."""
PIPELINES: list[Setting] = [("ancestral", 1000), ("ddim", 50)]
"""DDPMPipeline and DDIMPipeline with what they take by default."""
CANDIDATES: list[Setting] = [
    ("dpmpp2m", 8),
    ("dpmpp2m", 10),
    ("dpmpp2m", 15),
    ("heun", 10),
    ("heun", 18),
    ("ddim", 20),
    ("ddim", 50),
]
NETWORK = {"kind": "diffusers", "channels": 32, "multipliers": [1, 2, 2], "attention_below_px": 8}
QUALITY_IMAGES, NEIGHBOURS = 1000, 5
LONGEST_S = 3_600
"""1,000 images of 1,000 steps take most of it."""
FD_SLACK, COVERAGE_SLACK = 0.02, 0.01
"""What counts as equal: a share of the distance, and of the images."""


def main() -> int:
    """The exit code: 1 where a measurement failed."""
    arguments = _arguments()
    header([], [], arguments.quick)
    figures: dict[str, float] = {}
    failures: list[str] = []
    parts: list[Callable[[], dict[str, float]]] = [
        lambda: equal_work(arguments.quick),
        lambda: samplers(arguments.quick),
        shard_writer,
    ]
    if arguments.fitted:
        parts.append(lambda: equal_quality(*arguments.fitted))  # the longest
    for part in parts:
        try:
            figures |= part()
        except Exception as error:  # one measurement must not end the others
            failures.append(f"{type(error).__name__}: {error}")
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    if failures:
        print("\nfailed:\n" + "\n".join(f"  {failure}" for failure in failures))
    return int(bool(failures))


def equal_work(quick: bool) -> dict[str, float]:
    """The least ratio of our images/s to a pipeline's."""
    found: dict[tuple[Setting, str], list[Values]] = {}
    for _ in range(1 if quick else 3):
        for kind, steps in EQUAL_WORK:
            for side in SIDES:
                values = _draw(side, kind, steps, 32 if quick else 128, unet=NETWORK, objective="ddpm", size_px=32)
                found.setdefault(((kind, steps), side), []).append(values)
    rows = [[f"{kind}, {steps} steps", side, spread(values, "images_per_s")] for ((kind, steps), side), values in found.items()]
    table("Equal work: UNet2DModel, 32 x 32 px, float32", ["sampler", "side", "images/s"], rows)
    speed = {key: median(values, "images_per_s") for key, values in found.items()}
    return {
        "ratio_diffusers_equal_work": min(speed[setting, "ours"] / speed[setting, "diffusers"] for setting in EQUAL_WORK),
        **{f"equal_work_{kind}_{side}_images_per_s": value for ((kind, _), side), value in speed.items()},
    }


def samplers(quick: bool) -> dict[str, float]:
    """``KIND_STEPS_images_per_s`` of the small UNet at 28 x 28 px."""
    figures, rows = {}, []
    for (kind, steps), objective in SAMPLERS.items():
        images = min(64, 16_000 // steps) // (4 if quick else 1)
        repeats = [_draw("ours", kind, steps, images, objective=objective, size_px=28) for _ in range(1 if quick else 3)]
        figures[f"{kind}_{steps}_images_per_s"] = median(repeats, "images_per_s")
        rows.append([f"{kind}, {steps} steps", spread(repeats, "images_per_s")])
    table("Each sampler: the small UNet, 28 x 28 px", ["sampler", "images/s"], rows)
    return figures


def shard_writer() -> dict[str, float]:
    """What the writer of shards can take, which must be more than samplers give."""
    return _checked("benchmarks.shard_writer", "measure_writer", {})


def equal_quality(recipe: str, uri: str) -> dict[str, float]:
    """How much faster our fastest setting is that is as good as a pipeline's default: the lesser of both, and each."""
    wanted = [("diffusers", *setting) for setting in PIPELINES] + [("ours", *setting) for setting in CANDIDATES]
    found: dict[tuple[str, str, int], Values] = {}
    with tempfile.TemporaryDirectory(prefix="adainf-bench") as scratch:
        for side, kind, steps in wanted:
            save = str(Path(scratch, f"{side}-{kind}-{steps}.npy"))
            speed = _draw(side, kind, steps, QUALITY_IMAGES, fitted=[recipe, uri], save=save)
            quality = _checked("benchmarks.sample", "judge", {"images": save, "uri": uri})
            found[side, kind, steps] = {**speed, **quality, "evaluations": 2 * steps - 1 if kind == "heun" else steps}
    rows = [
        [
            side,
            f"{kind}, {steps} steps",
            *[short(values[name]) for name in ("images_per_s", "evaluations", "fd_rand", "coverage")],
        ]
        for (side, kind, steps), values in found.items()
    ]
    table("Equal quality: the same weights", ["side", "sampler", "images/s", "evaluations", "fd_rand", "coverage"], rows)
    figures = {}
    for kind, steps in PIPELINES:
        theirs = found["diffusers", kind, steps]
        ours = [values for (side, *_), values in found.items() if side == "ours" and _as_good(values, theirs)]
        ratios = [values["images_per_s"] / theirs["images_per_s"] for values in ours]
        figures[f"ratio_diffusers_{kind}_{steps}_equal_quality"] = max(ratios, default=0.0)
        if kind == "ancestral":
            figures["ratio_evaluations_ddpm_1000"] = max((steps / values["evaluations"] for values in ours), default=0.0)
    lesser = min(value for name, value in figures.items() if name.startswith("ratio_diffusers"))
    return {"ratio_diffusers_equal_quality": lesser, **figures}


def _as_good(ours: Values, theirs: Values) -> bool:
    near = ours["fd_rand"] <= theirs["fd_rand"] * (1 + FD_SLACK)
    return near and ours["coverage"] >= theirs["coverage"] - COVERAGE_SLACK


def _draw(side: str, kind: str, steps: int, images: int, **task: Any) -> Values:
    return _checked("benchmarks.sample", f"draw_{side}", {"kind": kind, "steps": steps, "images": images, **task})


def _checked(module: str, function: str, arguments: dict[str, Any]) -> Values:
    outcome = run(Job(sys.executable, module, function, arguments, {}, LONGEST_S))
    if isinstance(outcome, str):
        raise RuntimeError(f"{function}: {outcome}")
    return outcome


def draw_ours(images: int, save: str | None = None, **task: Any) -> Values:
    """A child's task: images/s of our sampling, from noise to uint8."""
    from adainf.generators.diffusion import open_diffusion
    from adainf.generators.sample import sample_images
    from adainf.runtime.determinism import default_device

    config, fitted, size_px = fitted_generator(**task)
    short_one = config.model_copy(update={"sampler": config.sampler.model_copy(update={"steps": 2})})
    batch, device = min(images, config.sampler.batch), default_device()
    open_diffusion(short_one, fitted, size_px, 0, device)(range(batch))  # what is set up once is not what is measured
    draw = open_diffusion(config, fitted, size_px, 0, device)
    return _timed(lambda: sample_images(draw, batch, range(images)), images, save)


def draw_diffusers(images: int, kind: str, steps: int, save: str | None = None, **task: Any) -> Values:
    """A child's task: the same with diffusers' pipeline around the same network."""
    import numpy as np
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

    from adainf.generators.diffusion import build_denoiser
    from adainf.generators.schedules import ddpm_sigmas
    from adainf.runtime.determinism import default_device

    config, fitted, size_px = fitted_generator(kind, steps, **task)
    device = default_device()
    network = build_denoiser(config, size_px, 0.5).network
    network.load_state_dict(fitted.weights)
    network = network.eval().to(device)
    levels = (ddpm_sigmas(config.objective).log() / 4).float().to(device)

    class AtTimestep(torch.nn.Module):
        """Our network, asked as a pipeline asks: by timestep."""

        config = argparse.Namespace(in_channels=3, sample_size=size_px)
        dtype = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.network, self.device = network, device

        def forward(self, x: Any, timestep: Any) -> Any:
            return argparse.Namespace(sample=self.network(x, levels[timestep].expand(len(x))))

    pipeline, scheduler = (DDIMPipeline, DDIMScheduler) if kind == "ddim" else (DDPMPipeline, DDPMScheduler)
    beta = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[config.objective.schedule]
    draw = pipeline(AtTimestep(), scheduler(config.objective.timesteps, beta_schedule=beta))
    draw.set_progress_bar_config(disable=True)
    batch = min(images, config.sampler.batch)
    draw(batch, num_inference_steps=2, output_type="np")
    torch.manual_seed(0)

    def work() -> Any:
        parts = [draw(batch, num_inference_steps=steps, output_type="np").images for _ in range(-(-images // batch))]
        return (np.concatenate(parts)[:images] * 255).round().astype(np.uint8)

    return _timed(work, images, save)


def judge(images: str, uri: str) -> Values:
    """A child's task: saved images against as many validation images, in the space of the fixed random network."""
    import numpy as np
    import torch

    from adainf.models.encoder import Normalisation
    from adainf.pipeline.artifacts import Run
    from adainf.quality.manifold import Manifold
    from adainf.quality.spaces import of_encoder, random_encoder
    from adainf.quality.statistics import Moments, frechet_distance
    from adainf.shards.format.folder import ShardFolder
    from adainf.shards.loader.read_all import read_split

    folder = ShardFolder.open(f"{uri}/real")
    assert Run(uri).find("real")
    training, validation = (read_split(folder, split).images for split in ("train", "validation"))
    device = torch.device("cpu")
    encoder = random_encoder(training, Normalisation.of(folder.shards.splits["train"]))
    space = of_encoder("rand", encoder, 256, device)
    drawn, real = (space.features(some[:QUALITY_IMAGES], "") for some in (np.load(images), validation))
    distance = frechet_distance(Moments.of(drawn), Moments.of(real))
    return {"fd_rand": distance, "coverage": Manifold(real, NEIGHBOURS, device).coverage(drawn)}


def fitted_generator(
    kind: str,
    steps: int,
    objective: str = "ddpm",
    size_px: int = 0,
    unet: dict[str, Any] | None = None,
    fitted: list[str] | None = None,
) -> tuple[Any, Any, int]:
    """(config, weights, size in px): a finished run's, or fresh ones."""
    from adainf.generators.diffusion import build_denoiser
    from adainf.generators.kind import Fitted
    from adainf.pipeline.artifacts import Run
    from adainf.pipeline.load_recipe import load_recipe
    from adainf.pipeline.serialization import decode
    from adainf.recipe import Diffusion
    from adainf.runtime.determinism import prepare
    from adainf.shards.format.folder import ShardFolder

    prepare(1)
    sampler = {"kind": kind, "steps": steps}
    if fitted is None:
        unet = unet or {"attention_below_px": 7}
        config = Diffusion.model_validate(
            {"kind": "diffusion", "steps": 1, "objective": {"kind": objective}, "unet": unet, "sampler": sampler}
        )
        return config, Fitted(dict(build_denoiser(config, size_px, 0.5).network.state_dict()), {"sigma_data": 0.5}), size_px
    run_ = Run(fitted[1])
    manifest, generator = run_.find("generator"), load_recipe(fitted[0]).generator
    assert manifest is not None
    assert isinstance(generator, Diffusion)
    model = manifest.output("model.safetensors")
    config = generator.model_copy(update={"sampler": generator.sampler.model_copy(update=sampler)})
    size_px = ShardFolder.open(f"{fitted[1]}/real").shards.image_size[0]
    return config, Fitted(*decode(run_.read(model), model.key)), size_px


def _timed(work: Callable[[], Any], images: int, save: str | None) -> Values:
    import numpy as np

    began_s = time.perf_counter()
    drawn = work()
    taken_s = time.perf_counter() - began_s
    if save:
        np.save(save, drawn)
    return {"images_per_s": images / taken_s}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat of few images: does it run, and about how fast")
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    parser.add_argument("--fitted", nargs=2, metavar=("RECIPE", "RUN"), help="measure equal quality too, with its generator")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
