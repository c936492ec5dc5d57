"""verify: short training runs (probes) around the plan, by successive halving, and the setting of arm `verified`.

Several workers share the probes (``--worker K/N``). A probe is one object; the first commit counts. A worker that has finished
its share waits for the probes of the others, at most as long as a probe takes, and then runs the missing ones itself. So a dead
worker costs time only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from adainf.augment.profiles import default_views
from adainf.errors import BadInput, Interrupted, StageFailed
from adainf.inflation.record import InflationPlan
from adainf.inflation.search import (
    FINALISTS,
    PRIOR,
    Setting,
    VerifyResult,
    better_half,
    decide,
    decision_lines,
    settings_around,
)
from adainf.pipeline.artifacts import Run
from adainf.pipeline.lifecycle import ArtifactJob, artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Request
from adainf.pretraining.loop import make_accelerator
from adainf.recipe import Monitor, Recipe, Verify
from adainf.runtime.determinism import prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all
from adainf.stages.mixture import check_batch, planned_sources
from adainf.stages.probe import Probe, judge_for

NAME = "verify"
WAIT_S = 60.0
"""How long a worker waits for a probe of another one before it has run its own; then twice its longest."""
_POLL_S = 1.0

_JUDGES = {
    "linear": "linear probe",
    "knn": "nearest neighbours",
    "infonce": "held-out InfoNCE under the plan's views, as there are no labels",
}


class ProbeKey(NamedTuple):
    """What identifies one probe."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        return f"{NAME}/probes/{self.setting.name}/seed-{self.seed}"


class Probes:
    """The probes of a run, run by this worker or read from the store."""

    def __init__(self, run: Run, probe: Probe, request: Request, reporter: Reporter, worker: tuple[int, int]) -> None:
        self._run, self._probe, self._base, self._reporter = run, probe, request, reporter
        self._first, self._workers = worker
        self._longest_s: float | None = None

    def scores(self, wanted: Sequence[ProbeKey]) -> list[float | None]:
        """The scores of these probes, in order; None where training failed."""
        for one in wanted[self._first :: self._workers]:
            self._find_or_run(one)
        while missing := [one for one in wanted if self._find(one) is None]:
            if self._workers == 1 or not self._wait_for_others(missing):
                self._find_or_run(missing[self._first % len(missing)])
        found = [self._find(one) for one in wanted]
        return [manifest.content["score"] for manifest in found if manifest is not None]  # type: ignore[misc] # a number or None

    def _wait_for_others(self, missing: Sequence[ProbeKey]) -> bool:
        """Wait until one of them is committed; False on time-out."""
        timeout_s = WAIT_S if self._longest_s is None else 2 * self._longest_s
        deadline = time.monotonic() + timeout_s
        keys = {self._run.manifest_key(one.name) for one in missing}
        while time.monotonic() < deadline:
            if any(info.key in keys for info in self._run.store.list(f"{NAME}/probes/")):
                return True
            time.sleep(min(_POLL_S, timeout_s))
        return False

    def _request(self, one: ProbeKey) -> Request:
        of_probe = {"setting": one.setting.model_dump(mode="json"), "seed": one.seed}
        return self._base.model_copy(update={"settings": {**self._base.settings, **of_probe}})

    def _find(self, one: ProbeKey) -> Manifest | None:
        manifest = self._run.find(one.name)
        if manifest is not None:
            self._run.check_request(one.name, manifest.request, self._request(one))
        return manifest

    def _find_or_run(self, one: ProbeKey) -> None:
        if self._find(one) is not None:
            return
        started = time.monotonic()
        try:
            score = self._probe.score(one.setting, one.seed)
        except Interrupted:
            raise Interrupted(
                "verify: stopped within a probe; those before it are kept: run the same command again to resume"
            ) from None
        self._longest_s = max(self._longest_s or 0.0, time.monotonic() - started)
        manifest = Manifest(request=self._request(one), content={"score": score})
        # Another worker may have committed it in the meantime, with other last digits: the first commit counts for all.
        self._run.compare_and_swap(self._run.manifest_key(one.name), manifest.to_json(), lambda there: False)
        result = "training failed" if score is None else f"{score:.4f}"
        self._reporter.info(f"verify: probe {one.setting.name} (seed {one.seed}): {result}")


def verify(recipe: Recipe, run: Run, reporter: Reporter, worker: tuple[int, int] = (0, 1)) -> Manifest:
    """Write ``verify/``: every probe and the choice. Raises `BadInput` where `plan.verify` is not set."""
    config = recipe.plan.verify
    if config is None:
        raise BadInput("the recipe's plan.verify is null; set it ({} has its defaults) and list arm verified in arms")
    with artifact(recipe, run, NAME, reporter, "verify") as job:
        manifest = job.finished
        if manifest is None:
            job.claim()
            manifest = job.commit(_search(recipe, config, job, reporter, worker))
    for line in manifest.content_as(VerifyResult).why:
        reporter.info(line)
    return manifest


def _search(recipe: Recipe, config: Verify, job: ArtifactJob, reporter: Reporter, worker: tuple[int, int]) -> VerifyResult:
    """Try the settings around the plan by probes, and choose one."""
    prepare(recipe.cpu_threads)
    plan = job.inputs["plan"].content_as(InflationPlan)
    default = default_views(recipe.pretrain.augmentation)
    probe = probe_of(recipe, job, plan)
    settings = [one for one in settings_around(plan, default) if one.name == PRIOR or _fits(recipe, probe, one)]
    verified = VerifyResult(
        judged_by=probe.judge,
        validation_images=probe.validation_images,
        probe_steps=probe.config.steps,
        settings=settings,
        scores={},
        decision=None,
        why=["verify: the plan stands untried, as it leaves the generated images out", "  that is arm none's setting"],
    )
    if plan.refused:
        return verified
    probes = Probes(job.run, probe, job.request, reporter, worker)
    return _decided(verified, probes, config.deciding_seeds, recipe.pretrain.steps)


def _decided(verified: VerifyResult, probes: Probes, deciding_seeds: int, full_steps: int) -> VerifyResult:
    """Halve the settings around the plan, with one more seed per round, then decide among the finalists with fresh seeds."""
    by_name = {setting.name: setting for setting in verified.settings}
    scores: dict[str, dict[str, float | None]] = {name: {} for name in by_name}

    def scored(names: Sequence[str], seeds: Sequence[int]) -> dict[str, list[float]]:
        """The scores of the settings whose training did not fail, one per seed."""
        wanted = [ProbeKey(by_name[name], seed) for seed in seeds for name in names]
        for one, score in zip(wanted, probes.scores(wanted), strict=True):
            scores[one.setting.name][str(one.seed)] = score
        found = {name: [scores[name][str(seed)] for seed in seeds] for name in names}
        return {name: [v for v in values if v is not None] for name, values in found.items() if None not in values}

    left, seeds = [name for name in by_name if name not in FINALISTS], 0
    while len(left) > 1:
        scored(left, [seeds])
        seeds += 1
        so_far = {name: list(scores[name].values()) for name in left}
        left = better_half(
            {name: [v for v in values if v is not None] for name, values in so_far.items() if None not in values}
        )
    finalists = [*(name for name in FINALISTS if name in by_name), *left]
    deciding = scored(finalists, range(seeds, seeds + deciding_seeds))
    if PRIOR not in deciding:
        raise StageFailed("verify: training fails in the plan's own setting, so arm adainf will too; change pretrain.optimizer")
    decision = decide(deciding)
    judge = f"{_JUDGES[verified.judged_by]} on {verified.validation_images:,} validation images"
    judge += f", after {verified.probe_steps:,} of {full_steps:,} steps"
    why = decision_lines(decision, by_name[decision.chosen], judge, deciding_seeds)
    return verified.model_copy(update={"scores": scores, "decision": decision, "why": why})


def probe_of(recipe: Recipe, job: ArtifactJob, plan: InflationPlan) -> Probe:
    """What all probes of a run share."""
    assert recipe.plan.verify is not None
    real, sources = ShardFolder.of(job.run, "real", job.inputs["real"]), planned_sources(job.run, plan, job.inputs)
    splits = {name: read_all.read_split(real, name) for name in ("train", "validation")}
    steps = max(round(recipe.plan.verify.budget * recipe.pretrain.steps), 1)
    config = recipe.pretrain.model_copy(update={"steps": steps, "checkpoint_every_steps": steps, "monitor": Monitor()})
    return Probe(recipe, config, real, sources, splits, judge_for(recipe, splits), plan.views, make_accelerator(config))


def _fits(recipe: Recipe, probe: Probe, setting: Setting) -> bool:
    """Whether the sources have enough images for its batches."""
    mixture = probe.mixture(setting)
    try:
        check_batch(recipe, setting.name, mixture.counts, list(mixture.weights.values()))
    except BadInput:
        return False
    return True
