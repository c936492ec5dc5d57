"""pretrain: one encoder per arm and seed, on one or several processes."""

from __future__ import annotations

from accelerate import Accelerator
from pydantic import JsonValue

from adainf.errors import BadInput, StageFailed
from adainf.models.card import Card
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.graph import pretrained
from adainf.pipeline.lifecycle import ArtifactJob, artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.pretraining.compiler import require_compiler
from adainf.pretraining.loop import make_accelerator, pretrain_arm
from adainf.pretraining.recalibrate import finished_encoder
from adainf.pretraining.trainer import Experiment
from adainf.recipe import Arm, Recipe
from adainf.runtime import distributed
from adainf.runtime.determinism import prepare
from adainf.shards import Stream
from adainf.shards.format.png import Pixels
from adainf.shards.loader.read_all import read_split
from adainf.stages.mixture import Mixture
from adainf.stages.validation import online_validation


def pretrain(recipe: Recipe, run: Run, reporter: Reporter, arm: str | None = None, seed: int | None = None) -> list[Manifest]:
    """Pretrain all arms and seeds of the recipe, or only those of `arm` and `seed`.

    Every process of a launch calls this with the same arguments.
    """
    arms = [known for known in recipe.arms if arm in (None, known)]
    seeds = [known for known in recipe.pretrain.seeds if seed in (None, known)]
    if not arms:
        raise BadInput(f"--arm {arm} is not one of the recipe's arms ({', '.join(recipe.arms)}); add it there")
    if not seeds:
        raise BadInput(f"--seed {seed} is not one of pretrain.seeds ({', '.join(map(str, recipe.pretrain.seeds))})")
    return [_pretrain_one(recipe, run, reporter, arm, seed) for arm in arms for seed in seeds]


def _pretrain_one(recipe: Recipe, run: Run, reporter: Reporter, arm: Arm, seed: int) -> Manifest:
    """Write ``pretrain/ARM/seed-SEED/`` with the encoder and its card."""
    name, label = pretrained(arm, seed), f"pretrain {arm} (seed {seed})"
    accelerator, checkpoints = make_accelerator(recipe.pretrain), Checkpoints(run, name, log=reporter.info)
    with artifact(
        recipe,
        run,
        name,
        reporter,
        label,
        unfinished=checkpoints,
        is_main_process=accelerator.is_main_process,
        discard_on=(StageFailed,),
    ) as job:
        if job.finished:
            return job.finished
        mixture = Mixture.for_arm(recipe, run, arm, job.inputs)
        described, tokens = mixture.describe(recipe.pretrain), mixture.captions(recipe.pretrain)
        if recipe.pretrain.compile:
            require_compiler(accelerator.device)
        prepare(recipe.cpu_threads)
        job.claim()
        normalisation = Normalisation.of(mixture.real.split("train"))
        twin = _find_twin(recipe, run, job, described, accelerator)

        def images() -> Pixels:
            return read_split(mixture.real, "train").images

        if twin is None:
            with checkpoints, mixture.open(recipe.pretrain, seed, accelerator) as stream:
                use = recipe.positives.use if recipe.positives and "use" in job.request.settings else None
                experiment = Experiment(recipe.pretrain, seed, stream, mixture.views, normalisation, tokens, use)
                validation = online_validation(recipe, mixture.real, normalisation, accelerator)
                trained = pretrain_arm(experiment, accelerator, checkpoints, reporter, label, validation)
                _report_data(stream, reporter, label)
            encoder = finished_encoder(recipe.pretrain, trained.backbone, normalisation, images, accelerator.device)
            data = encoder.to_bytes()
            curve: JsonValue = [list(point) for point in trained.curve]
        else:
            if accelerator.is_main_process:
                checkpoints.begin()  # fences off an attempt that trains
            data, curve = run.read(twin.output("encoder.safetensors")), twin.content["curve"]
            encoder = Encoder.from_bytes(data, label, recipe.pretrain.backbone)
        distributed.barrier()  # the others may still be reading the checkpoint that the commit deletes
        weights = job.write("encoder.safetensors", data)
        card = Card.of(encoder, weights.sha256, job.request, recipe.pretrain, mixture.real.shards.image_size)
        job.write("encoder.json", card.to_json())
        content: dict[str, JsonValue] = {
            "arm": arm,
            "seed": seed,
            "steps": recipe.pretrain.steps,
            "global_batch": recipe.pretrain.global_batch,
            **described,
            "curve": curve,
        }
        manifest = job.commit(content)
        distributed.barrier()
    if twin is not None:
        other = twin.request.settings["arm"]
        reporter.info(f"{label}: done, linked to arm {other}, which has the same images and views: the same encoder")
        return manifest
    budget = f"{recipe.pretrain.steps:,} steps of {recipe.pretrain.global_batch} images"
    reporter.info(f"{label}: done, {budget} on {accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}")
    return manifest


def _find_twin(
    recipe: Recipe, run: Run, job: ArtifactJob, described: dict[str, JsonValue], accelerator: Accelerator
) -> Manifest | None:
    """The finished encoder of another arm that has the bytes of this one: of the same seed, only real images, and equal views.

    So arm `adainf` equals `none` where the plan leaves the generated images out. The manifest does not contain where the bytes
    came from, as it must not depend on which arm was trained first. All processes agree.
    """

    def find() -> Manifest | None:
        ours = job.request
        if described["shares"] != {"real": 1.0} or "use" in ours.settings:  # of generated positives
            return None
        for arm in recipe.arms:
            found = run.find(pretrained(arm, int(str(ours.settings["seed"]))))
            if (
                found is not None
                and found.request.settings == {**ours.settings, "arm": arm}
                and found.request.inputs["real"] == ours.inputs["real"]
                and all(found.content.get(key) == value for key, value in described.items() if key != "real_weight")
            ):
                return found
        return None

    found = find() if accelerator.is_main_process else None
    decided = distributed.gather_uint64(int(found is not None), accelerator.device)[0]
    return (found or find()) if decided else None


def _report_data(stream: Stream, reporter: Reporter, label: str) -> None:
    """Log how long the loop waited for data, and report corrupt samples."""
    reporter.log("data", label=label, wait_seconds=round(stream.data_wait_seconds, 3))
    for damage in stream.damage:
        reporter.info(f"{label}: {damage.shard}: sample {damage.key} is corrupt ({damage.reason}); another sample replaces it")
