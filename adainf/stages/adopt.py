"""fit, for `kind: external`: nothing is trained; the declared checkpoint is checked and recorded."""

from __future__ import annotations

from adainf.errors import BadInput
from adainf.generators.external import GeneratorManifest, check_checkpoint, manifest_path, read_manifest
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import fitted
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, sha256
from adainf.recipe import External, GeneratedSource, Recipe
from adainf.shards.format.manifest import ShardSet


def adopt(
    recipe: Recipe, source: GeneratedSource, config: External, run: Run, reporter: Reporter, allow_foreign: bool
) -> Manifest:
    """Write the manifest of the source's generator. Raises `BadInput`, with nothing written, for an unusable checkpoint."""
    label = source.label("fit")

    def data_sha256(finished: Manifest | None) -> str | None:
        """A finished run does not need the checkpoint, but must notice a changed one."""
        if finished is not None and not manifest_path(config).exists():
            return finished.request.inputs.get("data")
        if finished is None:
            check_checkpoint(config)
        return sha256(read_manifest(config).to_json())

    with artifact(recipe, run, fitted(source.name), reporter, label, data_sha256=data_sha256) as job:
        if job.finished:
            return job.finished
        described = read_manifest(config)
        _check(config, described, job.inputs["real"], allow_foreign)
        job.claim()
        manifest = job.commit(described)
    reporter.info(f"{label}: not needed, {described.name} was fitted elsewhere; its checkpoint is recorded")
    return manifest


def _check(config: External, described: GeneratorManifest, real: Manifest, allow_foreign: bool) -> None:
    """Refuse a generator that does not fit the real images."""
    size, size_px = real.content_as(ShardSet).image_size, described.image_size_px
    if size != (size_px, size_px):
        raise BadInput(
            f"{config.checkpoint} makes images of {size_px} x {size_px} px, the real images are {size[0]} x {size[1]}: set "
            f"real.image_size_px: {size_px}, or bring a generator of that size"
        )
    check_foreign(described, real, allow_foreign)


def check_foreign(described: GeneratorManifest, real: Manifest, allowed: bool) -> None:
    """Refuse a generator that owes something to other images than the run's real ones, or to labels, unless `allowed`."""
    reasons = {
        "trained_on": f"fitted on {described.trained_on!r}, not on the real images of this run, whose digest is {real.digest}",
        "used_labels": "helped by labels",
    }
    foreign = [reasons[field] for field in described.foreign(real.digest)]
    if foreign and not allowed:
        raise BadInput(
            f"the external generator {described.name} was {' and '.join(foreign)}; fit one on real/ of this run and put that "
            "digest into its manifest as trained_on, or give --allow-foreign, and the report will say so"
        )
