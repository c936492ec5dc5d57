"""theory: labelling error and connectivity of a finished run's images, against the strength of augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from adainf.augment.profiles import Profile, default_views
from adainf.errors import BadInput
from adainf.evaluation.features import extract_local
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import generated_sets, pretrained, require
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Request
from adainf.pretraining.loop import build_encoder
from adainf.quality.measure import evenly_spaced
from adainf.recipe import Recipe
from adainf.report.theory import run_figures
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.png import Pixels
from adainf.shards.loader.read_all import Labelled, read_split
from adainf.theory.arc import confusion_ratio, relative_confusion
from adainf.theory.bound import error_bound
from adainf.theory.evaluator import labelling_error, train_evaluator, view_images
from adainf.theory.graph import image_graph, laplacian_eigenvalues
from adainf.theory.kernel import kernel_views, nearest_distance
from adainf.theory.record import (
    EVALUATOR_STEPS,
    GENERATED_IMAGES,
    MIN_SCALES,
    REAL_IMAGES,
    VIEWS,
    Connectivity,
    StrengthResult,
    Theory,
)

NAME = "theory"


def theory(recipe: Recipe, run: Run, reporter: Reporter, arm: str | None = None, as_json: bool = False) -> Manifest:
    """Write ``theory/ARM/``, the measurements and their figures; the default arm is the recipe's first.

    Raises `BadInput` where images have no labels, and as `graph.require` does.
    """
    arm = arm or recipe.arms[0]
    if arm not in recipe.arms:
        raise BadInput(f"--arm {arm} is not one of the recipe's arms ({', '.join(recipe.arms)})")
    seed = recipe.pretrain.seeds[0]
    encoder_name = pretrained(arm, seed)
    sets = generated_sets(recipe) if recipe.uses_generated else ()
    inputs = require(recipe, run, ["real", encoder_name, *sets])
    folder = ShardFolder.of(run, "real", inputs["real"])
    train, validation = (_labelled(folder, name) for name in ("train", "validation"))
    classes = len(np.unique(train.labels))
    if len(train.labels) <= classes:
        raise BadInput(f"{folder.locate('train')}: {classes} classes need more than as many images; give more")
    steps = min(recipe.pretrain.steps, EVALUATOR_STEPS)
    ladder = [default_views(recipe.pretrain.augmentation)[0].model_copy(update={"min_scale": scale}) for scale in MIN_SCALES]
    wanted = Request(
        stage=NAME,
        settings={
            "arm": arm,
            "ladder": [profile.model_dump(mode="json") for profile in ladder],
            "images": {"real": REAL_IMAGES, "generated": GENERATED_IMAGES, "views": VIEWS},
            "evaluator": {"steps": steps, "batch": recipe.pretrain.global_batch},
            "backbone": recipe.pretrain.backbone.model_dump(mode="json"),
        },
        inputs={name: manifest.digest for name, manifest in inputs.items()},
    )
    name = f"{NAME}/{arm}"
    job = ArtifactJob(run, name, wanted, inputs)
    manifest = job.finished
    if manifest is None:
        job.claim()
        prepare(recipe.cpu_threads)
        weights = inputs[encoder_name].output("encoder.safetensors")
        encoder = Encoder.from_bytes(run.read(weights), run.locate(weights.key), recipe.pretrain.backbone)
        parts = [read_split(ShardFolder.of(run, name, inputs[name]), "train").images for name in sets]
        generated = np.concatenate(parts) if parts else None
        progress = Reporter(quiet=True) if as_json else reporter  # progress lines are not JSON
        found = _measure(recipe, arm, encoder, ladder, steps, train, validation, generated, progress)
        for file_name, data in run_figures(found).items():
            job.write(file_name, data)
        manifest = job.commit(found)
    found = manifest.content_as(Theory)
    if as_json:
        print(found.to_json().decode(), end="")
    else:
        reporter.console.print(_table(found))
        reporter.info(f"theory: figures in {run.locate(name)}/")
    return manifest


def _labelled(folder: ShardFolder, name: str) -> Labelled:
    images, labels = read_split(folder, name)
    known = labels >= 0
    if len(np.unique(labels[known])) < 2:
        raise BadInput(
            f"{folder.locate(name)}: a labelling error needs labels of two classes at least, and this split has "
            f"{len(np.unique(labels[known]))}; ingest labelled images (and real.validation_fraction above 0)"
        )
    return Labelled(images[known], labels[known])


def _measure(
    recipe: Recipe,
    arm: str,
    encoder: Encoder,
    ladder: Sequence[Profile],
    steps: int,
    train: Labelled,
    validation: Labelled,
    generated: Pixels | None,
    reporter: Reporter,
) -> Theory:
    config, device, normalisation = recipe.pretrain, default_device(), encoder.normalisation
    evaluator = train_evaluator(train, config.backbone, ladder, steps, config.global_batch, normalisation, device)
    still = ladder[0].scaled(0)
    images = _graph_images(train.images, generated)
    untrained = Encoder(config.backbone, build_encoder(config, config.seeds[0]), normalisation)
    bandwidth = nearest_distance(extract_local(encoder, images["real"], recipe.evaluate.batch, device))
    classes = len(np.unique(train.labels))
    rungs = []
    with reporter.track(f"theory {arm}", len(ladder)) as track:
        for profile in ladder:
            alpha = labelling_error(evaluator, validation, profile, VIEWS, normalisation, device)
            graphs = {}
            for name, some in images.items():
                before, after = (_view_features(each, some, profile, device) for each in (untrained, encoder))
                graphs[name] = _connectivity(before, after, bandwidth, alpha, classes)
            rungs.append(StrengthResult(min_scale=profile.min_scale, labelling_error=alpha, graphs=graphs))
            track.advance()
    return Theory(
        arm=arm,
        seed=config.seeds[0],
        features=classes,
        evaluator_error=labelling_error(evaluator, validation, still, 1, normalisation, device),
        bandwidth=bandwidth,
        rungs=rungs,
    )


def _graph_images(real: Pixels, generated: Pixels | None) -> dict[str, Pixels]:
    """The images of each graph; `more real` has as many as `inflated` and shows the effect of their number."""
    images = {"real": real[evenly_spaced(len(real), min(REAL_IMAGES, len(real)))]}
    if generated is not None:
        more = generated[evenly_spaced(len(generated), min(GENERATED_IMAGES, len(generated)))]
        images["inflated"] = np.concatenate([images["real"], more])
        if len(real) >= len(images["inflated"]):
            images["more real"] = real[evenly_spaced(len(real), len(images["inflated"]))]
    return images


def _connectivity(
    untrained_NVD: NDArray[np.float32], trained_NVD: NDArray[np.float32], bandwidth: float, alpha: float, classes: int
) -> Connectivity:
    before, after = confusion_ratio(untrained_NVD), confusion_ratio(trained_NVD)
    graph = image_graph(kernel_views(trained_NVD, bandwidth))
    connectivity = float(laplacian_eigenvalues(graph, classes + 1)[-1])
    bound = error_bound(alpha, connectivity)
    return Connectivity(
        images=len(trained_NVD),
        acr=after,
        acr_untrained=before,
        arc=relative_confusion(after, before),
        connectivity=connectivity,
        bound=bound if math.isfinite(bound) else None,
    )


def _view_features(encoder: Encoder, images: Pixels, profile: Profile, device: torch.device) -> NDArray[np.float32]:
    """N x V x D features of V views of each image."""
    backbone = encoder.backbone.to(device).eval()
    parts = []
    with torch.inference_mode():
        for first in range(0, len(images), 256):
            rows = np.arange(first, min(first + 256, len(images)))
            views = view_images(images[rows], rows, 0, [profile] * VIEWS, encoder.normalisation, device)
            parts.append(torch.stack([backbone(x_BCHW).float() for x_BCHW in views], dim=1).cpu().numpy())
    return np.concatenate(parts)


def _table(found: Theory) -> Table:
    title = f"arm {found.arm}, k = {found.features} classes; evaluator error {found.evaluator_error:.3f} on uncropped images"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for heading in ("min scale", "alpha", "graph", "images", "ACR", "ARC", "lambda_k+1", "bound"):
        table.add_column(heading, justify="left" if heading == "graph" else "right")
    for rung in found.rungs:
        for name, graph in rung.graphs.items():
            table.add_row(
                f"{rung.min_scale:g}",
                f"{rung.labelling_error:.3f}",
                name,
                f"{graph.images:,}",
                f"{graph.acr:.3f}",
                "–" if graph.arc is None else f"{graph.arc:.3f}",
                f"{graph.connectivity:.4f}",
                "∞" if graph.bound is None else f"{graph.bound:.1f}",
            )
    return table
