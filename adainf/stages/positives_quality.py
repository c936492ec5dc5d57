"""measure, for generated positives: ``quality/positives/``."""

from __future__ import annotations

from adainf.augment.profiles import default_views
from adainf.errors import BadInput
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import POSITIVES, POSITIVES_QUALITY, judging_encoder
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.quality.measure import evenly_spaced
from adainf.quality.positives import candidate_scores
from adainf.quality.record import Network, PositivesQuality
from adainf.quality.spaces import of_encoder, random_encoder
from adainf.recipe import Recipe
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import read_split

_LEAST_IMAGES = 8


def measure_positives(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Measure the candidates against their parents.

    Raises `BadInput` where they retrieve their parents no better than chance: no arm trains on such candidates.
    """
    config, label = recipe.quality, "measure positives"
    assert config is not None
    with artifact(recipe, run, POSITIVES_QUALITY, reporter, label) as job:
        if job.finished:
            return job.finished
        real, folder = (ShardFolder.of(run, name, job.inputs[name]) for name in ("real", POSITIVES))
        count = real.split("train").images
        if count < _LEAST_IMAGES:
            raise BadInput(
                f"positives are measured on at least {_LEAST_IMAGES} real training images, and there are {count}; bring more, "
                "or set quality: null"
            )
        prepare(recipe.cpu_threads)
        device, rows = default_device(), evenly_spaced(count, min(config.images, count))
        training, drawn = read_split(real, "train").images, read_split(folder, "train").images
        judge = judging_encoder(recipe)
        if judge is None:
            name, encoder = "rand", random_encoder(training[rows], Normalisation.of(real.split("train")))
        else:
            weights = job.inputs[judge].output("encoder.safetensors")
            name, encoder = "ssl", Encoder.from_bytes(run.read(weights), run.locate(weights.key), recipe.pretrain.backbone)
        space = of_encoder(name, encoder, config.batch, device)
        candidates = [drawn[rows + first] for first in range(0, len(drawn), count)]
        augmentation = recipe.pretrain.augmentation
        scores = candidate_scores(space, training, rows, candidates, default_views(augmentation), augmentation.hue, device)
        found = scores["retrieval"]
        assert found.low is not None
        if found.low <= found.null:
            raise BadInput(
                f"the nearest real image of a candidate is its parent for {100 * found.value:.3g} % of the candidates, no more "
                f"than chance ({100 * found.null:.3g} %), so they are no positives: lower positives.draw.sigma, fit the "
                "generator for longer, or remove the arms with positives"
            )
        features = space.features(training[:1], "training").shape[1]
        network = Network(sha256=space.sha256, features=features)
        job.claim()
        quality = PositivesQuality(images=len(rows), candidates=len(candidates), spaces={name: network}, scores=scores)
        manifest = job.commit(quality)
    reporter.info(f"{label}: done, {quality.candidates} candidates of {quality.images:,} images")
    for metric, score in scores.items():
        null = "chance" if metric == "retrieval" else "augmented views"
        reporter.info(f"  {metric} {score.value:.4g}  ({null}: {score.null:.4g})")
    return manifest
