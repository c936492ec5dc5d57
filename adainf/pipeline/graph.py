"""The chain as data: which command makes each artifact, from which others, and which part of the recipe decides it.

``ingest → fit → generate → plan → pretrain → evaluate → report`` is a small graph: arm `none` needs the real images
only. Artifacts are named as in `artifacts`: by the key of their manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Manifest, Request, Run
from adainf.recipe import REAL_ALONE, Arm, External, ImportedImages, Recipe, Source

UNTRAINED = "untrained"
"""The encoder that every arm starts from, judged beside the arms."""

SHARED = {"generate": ("generated/", ".index.json"), "verify": ("verify/probes/", ".json"), "evaluate": ("evaluate/", ".json")}
"""The stages that workers share, and the keys of what they commit one by one: how these begin and end."""


@dataclass(frozen=True)
class Link:
    """How one artifact comes about."""

    stage: str
    inputs: tuple[str, ...]
    """The artifacts that it is made from."""
    settings: dict[str, Any]
    """The part of the recipe that decides it; places of data and how often to save are no part."""


def fitted(source: str) -> str:
    """The artifact with the generator of a source, by the source's name: that of a recipe's only one is empty."""
    return _of("generator", source)


def generated(source: str) -> str:
    """The artifact with the images of a source."""
    return _of("generated", source)


def measured(source: str) -> str:
    """The artifact with the quality of a source's images."""
    return _of("quality", source)


def _of(artifact: str, source: str) -> str:
    return f"{artifact}/{source}" if source else artifact


def generated_sets(recipe: Recipe) -> tuple[str, ...]:
    """The artifacts with generated images, in the order of their names."""
    return tuple(generated(source) for source in recipe.sources)


def pretrained(arm: str, seed: int) -> str:
    """The artifact with the encoder of one arm and seed."""
    return f"pretrain/{arm}/seed-{seed}"


def evaluated(arm: str) -> str:
    """The artifact with the scores of one arm."""
    return f"evaluate/{arm}"


def committed_pieces(run: Run, stage: str) -> int:
    """How many pieces of a stage that workers share are in the store: shards, probes, arms; 0 for any other stage."""
    if stage not in SHARED:
        return 0
    begin, end = SHARED[stage]
    return sum(info.key.endswith(end) for info in run.store.list(begin))


def judging_encoder(recipe: Recipe) -> str | None:
    """The artifact with the encoder by whose features generated images are measured, where the recipe has arm `none`."""
    return pretrained("none", recipe.pretrain.seeds[0]) if "none" in recipe.arms else None


def chain(recipe: Recipe) -> dict[str, Link]:
    """All artifacts of a recipe but the report of them, each after those that it is made from."""
    links = {"real": Link("ingest", (), recipe.real.model_dump(mode="json", exclude={"path", "download"}))}
    if recipe.uses_generated:
        for source in recipe.sources.values():
            links |= _generated(source)
    if "none" in recipe.arms:
        links |= _pretrained(recipe, "none")  # first, as its encoder judges the generated images
    qualities = tuple(measured(source) for source in recipe.sources) if recipe.measures_quality else ()
    if recipe.measures_quality:
        assert recipe.quality is not None
        judge = judging_encoder(recipe)
        settings = recipe.quality.model_dump(mode="json", exclude={"batch": True, "inception": {"weights"}})
        for quality, images in zip(qualities, generated_sets(recipe), strict=True):
            links[quality] = Link("measure", ("real", images, *([judge] if judge else [])), settings)
    if recipe.uses_plan:
        augmentation = recipe.pretrain.augmentation.model_dump(mode="json")
        settings = {"plan": recipe.plan.model_dump(mode="json", exclude={"verify"}), "augmentation": augmentation}
        links["plan"] = Link("plan", ("real", *generated_sets(recipe), *qualities), settings)
    if recipe.plan.verify is not None:
        probed = {"verify": recipe.plan.verify.model_dump(mode="json"), "l2_grid": list(recipe.evaluate.l2_grid)}
        judged_by = {**probed, "knn_neighbours": recipe.evaluate.knn_neighbours}
        links["verify"] = Link("verify", ("real", *generated_sets(recipe), "plan"), {**judged_by, **_training(recipe)})
    for arm in recipe.arms:
        if arm != "none":
            links |= _pretrained(recipe, arm)
    seeds = recipe.pretrain.seeds
    protocol = {
        "seeds": list(seeds),
        "evaluate": recipe.evaluate.model_dump(mode="json", exclude={"batch"}),
        "backbone": recipe.pretrain.backbone.model_dump(mode="json"),
        "augmentation": recipe.pretrain.augmentation.model_dump(mode="json"),  # the views of InfoNCE, for every arm
    }
    for judged in (*recipe.arms, UNTRAINED):
        encoders = tuple(pretrained(judged, seed) for seed in seeds if judged != UNTRAINED)
        links[evaluated(judged)] = Link("evaluate", ("real", *encoders), {"arm": judged, **protocol})
    return links


def _training(recipe: Recipe) -> dict[str, Any]:
    """What decides an encoder beside its arm and seed."""
    unseen: Any = {
        "seeds": True,
        "checkpoint_every_steps": True,
        "monitor": True,
        "stream": {"prefetch_batches", "check_every_steps", "on_device"},
    }
    return recipe.pretrain.model_dump(mode="json", exclude=unseen)


_DECIDED_BY: dict[Arm, tuple[str, ...]] = {"none": (), "vanilla": (), "verified": ("plan", "verify")}
"""What an arm goes by, where it is not the plan alone."""


def _pretrained(recipe: Recipe, arm: Arm) -> dict[str, Link]:
    generated_images = () if arm in REAL_ALONE else generated_sets(recipe)
    inputs = ("real", *generated_images, *_DECIDED_BY.get(arm, ("plan",)))
    common, seeds = _training(recipe), recipe.pretrain.seeds
    return {pretrained(arm, seed): Link("pretrain", inputs, {"arm": arm, "seed": seed, **common}) for seed in seeds}


def _generated(source: Source) -> dict[str, Link]:
    generator, images = source.generator, generated(source.name)
    generate = source.generate.model_dump(mode="json")
    if isinstance(generator, ImportedImages):
        imported = generator.model_dump(mode="json", exclude={"path"})
        return {images: Link("generate", ("real",), {"generator": imported, "generate": generate})}
    sampled: set[str] = {"sampler", "command", "callable"} if isinstance(generator, External) else {"sampler"}
    unseen = {"checkpoint_every_steps", "checkpoint", "time_limit_s"}
    fit = generator.model_dump(mode="json", exclude=sampled | unseen)
    sampling = {**generator.model_dump(mode="json", include=sampled), "generate": generate}
    made_by = fitted(source.name)
    return {made_by: Link("fit", ("real",), fit), images: Link("generate", ("real", made_by), sampling)}


def request(recipe: Recipe, name: str, inputs: Mapping[str, Manifest], data_sha256: str | None = None) -> Request:
    """What artifact `name` must answer; `data_sha256` names what it reads from outside the run."""
    link = chain(recipe)[name]
    digests = {key: manifest.digest for key, manifest in inputs.items()}
    if data_sha256 is not None:
        digests["data"] = data_sha256
    return Request(stage=link.stage, settings=link.settings, inputs=digests)


def extends(stored: Request, wanted: Request) -> bool:
    """Whether `wanted` is the generated images of `stored` and more of them, so that its shards can be kept.

    Raises `BadInput` where it differs in their number alone and cannot: it asks for fewer, or the last shard is not full.
    """
    if stored == wanted or "sampler" not in stored.settings:  # an import takes its images evenly from all that there are
        return False
    before: Any = stored.settings["generate"]
    now: Any = wanted.settings["generate"]
    images_before, images = before["images"], now["images"]
    settings = {**stored.settings, "generate": {**before, "images": images}}
    if stored.model_copy(update={"settings": settings}) != wanted:
        return False
    if images < images_before:
        raise BadInput(
            f"this run generates {images_before} images and generate.images is now {images}: a set can grow but not shrink; "
            f"set generate.images to {images_before} or more, or choose another --run"
        )
    if images_before % now["shard_images"]:
        raise BadInput(
            f"the {images_before} images that this run generates end within a shard of {now['shard_images']}, and only whole "
            f"shards can be kept if they are to be {images}; set generate.images to {images_before}, or choose another --run"
        )
    return True


class Begun(NamedTuple):
    """What a stage needs to know before it computes."""

    inputs: dict[str, Manifest]
    request: Request
    finished: Manifest | None
    """The artifact, where an earlier run of the stage has committed it."""


def begin(recipe: Recipe, run: Run, name: str) -> Begun:
    """Find what artifact `name` is made from, and claim it. Raises `BadInput` as `require` and `Run.claim` do."""
    inputs = require_inputs(recipe, run, name)
    wanted = request(recipe, name, inputs)
    return Begun(inputs, wanted, run.claim(name, wanted))


def require_inputs(recipe: Recipe, run: Run, name: str) -> dict[str, Manifest]:
    """The finished artifacts that `name` is made from; see `require`."""
    return require(recipe, run, chain(recipe)[name].inputs)


def require(recipe: Recipe, run: Run, names: Iterable[str]) -> dict[str, Manifest]:
    """Finished artifacts of this recipe, by name. Raises `BadInput` where one is missing, was made by another recipe, or
    from another input than the run holds now: a run is never a mix of two."""
    links = chain(recipe)
    found: dict[str, Manifest] = {}

    def visit(name: str) -> None:
        if name in found:
            return
        link = links[name]
        for before in link.inputs:
            visit(before)
        manifest = run.find(name)
        if manifest is None:
            command = f"{link.stage} RECIPE" + (f" --arm {link.settings['arm']}" if "arm" in link.settings else "")
            raise BadInput(f"{run.locate(run.manifest_key(name))} is missing: run `adainf {command}` on this run first")
        # Data from outside the run are known to the stage alone that read them.
        data = manifest.request.inputs.get("data")
        wanted = request(recipe, name, {before: found[before] for before in link.inputs}, data)
        if link.stage == "generate" and extends(manifest.request, wanted):
            raise BadInput(
                f"{run.locate(name)} holds fewer images than generate.images asks for: run `adainf generate RECIPE` on this "
                "run to extend it"
            )
        run.check_request(name, manifest.request, wanted)
        found[name] = manifest

    wanted_names = list(names)
    for name in wanted_names:
        visit(name)
    return {name: found[name] for name in wanted_names}
