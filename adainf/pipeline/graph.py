"""The pipeline graph of a recipe: which stage makes each artifact, from which inputs, and which settings decide it.

Artifacts are named by the key of their manifest (`artifacts.Run`). The stages are in `stages.STAGES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Request
from adainf.pipeline.stages import STAGES
from adainf.recipe import REAL_ALONE, WITH_CANDIDATES, Arm, External, GeneratedSource, ImportedImages, Recipe, Renoise

REPORT = "report"
"""The artifact that summarizes all others. It is not a node of the graph; also the name of its task."""
UNTRAINED = "untrained"
"""The initial encoder of every arm, evaluated as a baseline."""
POSITIVES = "positives"
"""The artifact with the candidates of the real training images."""
POSITIVES_QUALITY = "quality/positives"
"""The artifact with their measurements."""
GROWS_WITH = {"generate": "generate.images", "positives": "positives.candidates"}
"""Stage → the setting that extends its set where it is raised."""


@dataclass(frozen=True)
class Node:
    """How one artifact is made."""

    stage: str
    inputs: tuple[str, ...]
    """The artifacts that it is made from."""
    settings: dict[str, Any]
    """The part of the recipe that determines it, without data paths and checkpoint intervals."""

    @property
    def task(self) -> str:
        """The task that makes it: a stage, or of pretrain one arm (``pretrain.ARM``), as measure needs that of arm `none`."""
        return task_name(self.stage, self.settings["arm"] if self.stage == "pretrain" else None)


def task_name(stage: str, arm: str | None) -> str:
    """STAGE, or STAGE.ARM."""
    return f"{stage}.{arm}" if arm else stage


def fitted(source: str) -> str:
    """The artifact with the generator of a source. The name of a recipe's only source is empty."""
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
    """How many pieces of an indexed stage are in the store: shards, probes, arms; 0 for any other stage."""
    piece_key = STAGES[stage].piece_key
    if piece_key is None:
        return 0
    prefix, suffix = piece_key
    return sum(info.key.endswith(suffix) for info in run.store.list(prefix))


def judging_encoder(recipe: Recipe) -> str | None:
    """The artifact with the encoder whose features measure generated images, if the recipe has arm `none`."""
    return pretrained("none", recipe.pretrain.seeds[0]) if "none" in recipe.arms else None


def build_graph(recipe: Recipe) -> dict[str, Node]:
    """All artifacts of a recipe except the report, each after its inputs."""
    nodes = {"real": Node("ingest", (), recipe.real.model_dump(mode="json", exclude={"path", "download"}))}
    if recipe.uses_generated:
        for source in recipe.sources.values():
            nodes |= _generated(source)
    if "none" in recipe.arms:
        nodes |= _pretrained(recipe, "none")  # first, as measure uses its encoder
    if recipe.uses_candidates:
        nodes |= _positives(recipe)
    qualities = tuple(measured(source) for source in recipe.sources) if recipe.measures_quality else ()
    if recipe.measures_quality:
        assert recipe.quality is not None
        judge = judging_encoder(recipe)
        settings = recipe.quality.model_dump(mode="json", exclude={"batch": True, "inception": {"weights"}})
        for quality, images in zip(qualities, generated_sets(recipe), strict=True):
            nodes[quality] = Node("measure", ("real", images, *([judge] if judge else [])), settings)
        if recipe.uses_candidates:
            nodes[POSITIVES_QUALITY] = _positives_quality(recipe, judge)
    if recipe.uses_plan:
        augmentation = recipe.pretrain.augmentation.model_dump(mode="json")
        settings = {"plan": recipe.plan.model_dump(mode="json", exclude={"verify"}), "augmentation": augmentation}
        if recipe.pretrain.method.kind != "simclr":  # the requests of SimCLR's plans are older than this key
            settings["method"] = recipe.pretrain.method.kind
        nodes["plan"] = Node("plan", ("real", *generated_sets(recipe), *qualities), settings)
    if recipe.plan.verify is not None:
        probed = {"verify": recipe.plan.verify.model_dump(mode="json"), "l2_grid": list(recipe.evaluate.l2_grid)}
        judged_by = {**probed, "knn_neighbours": recipe.evaluate.knn_neighbours}
        nodes["verify"] = Node("verify", ("real", *generated_sets(recipe), "plan"), {**judged_by, **training(recipe)})
    for arm in recipe.arms:
        if arm != "none":
            nodes |= _pretrained(recipe, arm)
    seeds = recipe.pretrain.seeds
    protocol = {
        "seeds": list(seeds),
        "evaluate": recipe.evaluate.model_dump(mode="json", exclude={"batch"}),
        "backbone": recipe.pretrain.backbone.model_dump(mode="json"),
        "augmentation": recipe.pretrain.augmentation.model_dump(mode="json"),  # the views of InfoNCE, for every arm
    }
    for judged in (*recipe.arms, UNTRAINED):
        encoders = tuple(pretrained(judged, seed) for seed in seeds if judged != UNTRAINED)
        nodes[evaluated(judged)] = Node("evaluate", ("real", *encoders), {"arm": judged, **protocol})
    for stage in STAGES.values():
        if stage.default_node:
            inputs = tuple(name for name, node in nodes.items() if node.stage in stage.inputs)
            settings = recipe.model_dump(mode="json", include=set(stage.recipe_sections))
            nodes[stage.artifacts] = Node(stage.name, inputs, settings)
    return nodes


def training(recipe: Recipe) -> dict[str, Any]:
    """The settings that determine an encoder, besides its arm and seed."""
    unseen: Any = {
        "seeds": True,
        "checkpoint_every_steps": True,
        "monitor": True,
        "stream": {"prefetch_batches", "check_every_steps", "on_device"},
    }
    return recipe.pretrain.model_dump(mode="json", exclude=unseen)


_DECIDED_BY: dict[Arm, tuple[str, ...]] = {"none": (), "vanilla": (), "verified": ("plan", "verify")}
"""The artifacts that an arm uses, where it is not only the plan."""


def _pretrained(recipe: Recipe, arm: Arm) -> dict[str, Node]:
    generated_images = () if arm in REAL_ALONE else generated_sets(recipe)
    inputs = ("real", *generated_images, *_DECIDED_BY.get(arm, ("plan",)))
    common, seeds = training(recipe), recipe.pretrain.seeds
    if arm in WITH_CANDIDATES:  # measured first: candidates that have nothing to do with their parents are refused
        inputs = (*inputs, POSITIVES, *([POSITIVES_QUALITY] if recipe.measures_quality else []))
    if arm in (*WITH_CANDIDATES, "third-view"):
        assert recipe.positives is not None
        common["use"] = recipe.positives.use.model_dump(mode="json")
    return {pretrained(arm, seed): Node("pretrain", inputs, {"arm": arm, "seed": seed, **common}) for seed in seeds}


def _positives(recipe: Recipe) -> dict[str, Node]:
    assert recipe.positives is not None
    source, settings = recipe.candidate_source, recipe.positives.model_dump(mode="json", exclude={"use"})
    if isinstance(recipe.positives.draw, Renoise):
        settings |= source.generator.model_dump(mode="json", include={"sampler"})
        return {POSITIVES: Node("positives", ("real", fitted(source.name)), settings)}
    judge = judging_encoder(recipe)
    assert judge is not None
    return {POSITIVES: Node("positives", ("real", generated(source.name), judge), settings)}


def _positives_quality(recipe: Recipe, judge: str | None) -> Node:
    assert recipe.quality is not None
    settings = {"images": recipe.quality.images, "augmentation": recipe.pretrain.augmentation.model_dump(mode="json")}
    return Node("measure", ("real", POSITIVES, *([judge] if judge else [])), settings)


def _generated(source: GeneratedSource) -> dict[str, Node]:
    generator, images = source.generator, generated(source.name)
    generate = source.generate.model_dump(mode="json")
    if isinstance(generator, ImportedImages):
        imported = generator.model_dump(mode="json", exclude={"path"})
        return {images: Node("generate", ("real",), {"generator": imported, "generate": generate})}
    sampled: set[str] = {"sampler", "command", "callable"} if isinstance(generator, External) else {"sampler"}
    unseen = {"checkpoint_every_steps", "checkpoint", "time_limit_s"}
    fit = generator.model_dump(mode="json", exclude=sampled | unseen)
    sampling = {**generator.model_dump(mode="json", include=sampled), "generate": generate}
    made_by = fitted(source.name)
    return {made_by: Node("fit", ("real",), fit), images: Node("generate", ("real", made_by), sampling)}


def tasks(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The tasks of a recipe, each after those whose artifacts it reads: name → all its artifacts."""
    made: dict[str, tuple[str, ...]] = {}
    for name, node in build_graph(recipe).items():
        made[node.task] = (*made.get(node.task, ()), name)
    return {**made, REPORT: (REPORT,)}


def request(recipe: Recipe, name: str, inputs: Mapping[str, Manifest], data_sha256: str | None = None) -> Request:
    """The request of artifact `name`; `data_sha256` identifies the data that it reads from outside the run."""
    node = build_graph(recipe)[name]
    digests = {key: manifest.digest for key, manifest in inputs.items()}
    if data_sha256 is not None:
        digests["data"] = data_sha256
    return Request(stage=node.stage, settings=node.settings, inputs=digests)


def extends(stored: Request, wanted: Request) -> bool:
    """Whether `wanted` has the generated images of `stored` and more, so that the stored shards can be reused.

    Raises `BadInput` if only the number of images differs and they cannot: fewer images, or a last shard that is not full.
    """
    if stored.stage == "positives":
        return _has_more_candidates(stored, wanted)
    if stored == wanted or "sampler" not in stored.settings:  # an import samples evenly from all its images
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
            f"the {images_before} images that this run generates do not fill a shard of {now['shard_images']}, and only full "
            f"shards can be reused for {images} images; set generate.images to {images_before}, or choose another --run"
        )
    return True


def _has_more_candidates(stored: Request, wanted: Request) -> bool:
    before: Any = stored.settings["candidates"]
    now: Any = wanted.settings["candidates"]
    if stored == wanted or stored.model_copy(update={"settings": {**stored.settings, "candidates": now}}) != wanted:
        return False
    if now < before:
        raise BadInput(
            f"this run has {before} candidates per image and positives.candidates is now {now}: a set can grow but not shrink; "
            f"set positives.candidates to {before} or more, or choose another --run"
        )
    return True


def require_inputs(recipe: Recipe, run: Run, name: str) -> dict[str, Manifest]:
    """The finished artifacts that `name` is made from; see `require`."""
    return require(recipe, run, build_graph(recipe)[name].inputs)


def require(recipe: Recipe, run: Run, names: Iterable[str]) -> dict[str, Manifest]:
    """Finished artifacts of this recipe, by name. Raises `BadInput` if one is missing, is of another recipe, or is of another
    input than the run contains now: a run never mixes two recipes."""
    nodes = build_graph(recipe)
    found: dict[str, Manifest] = {}

    def visit(name: str) -> None:
        if name in found:
            return
        node = nodes[name]
        for before in node.inputs:
            visit(before)
        manifest = run.find(name)
        if manifest is None:
            command = f"{node.stage} RECIPE" + (f" --arm {node.settings['arm']}" if "arm" in node.settings else "")
            raise BadInput(f"{run.locate(run.manifest_key(name))} is missing: run `adainf {command}` on this run first")
        # Only the stage that read data from outside the run knows their digest.
        data = manifest.request.inputs.get("data")
        wanted = request(recipe, name, {before: found[before] for before in node.inputs}, data)
        if node.stage in GROWS_WITH and extends(manifest.request, wanted):
            raise BadInput(
                f"{run.locate(name)} holds fewer images than {GROWS_WITH[node.stage]} asks for: run `adainf {node.stage} "
                "RECIPE` on this run to extend it"
            )
        run.check_request(name, manifest.request, wanted)
        found[name] = manifest

    wanted_names = list(names)
    for name in wanted_names:
        visit(name)
    return {name: found[name] for name in wanted_names}
