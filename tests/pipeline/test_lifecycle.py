"""The lifecycle that all stages share: reuse, claim, commit, discard, and who may write."""

from __future__ import annotations

from pathlib import Path

import pytest

from adainf.errors import BadInput, StageFailed, Superseded
from adainf.pipeline.artifacts import Run
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.records import Request

REQUEST = Request(stage="fit", settings={"seed": 0})
OTHER = Request(stage="fit", settings={"seed": 1})
MORE = Request(stage="fit", settings={"seed": 0, "more": True})


class Checkpoints:
    """Unfinished state of a stage; `is_stale` is what a newer attempt makes of it."""

    def __init__(self) -> None:
        self.deleted, self.is_stale = False, False

    def check(self) -> None:
        if self.is_stale:
            raise Superseded("a newer attempt has taken over")

    def delete(self) -> None:
        self.deleted = True


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


def keys(run: Run) -> set[str]:
    return {info.key for info in run.store.list()}


def finish(run: Run, request: Request = REQUEST) -> None:
    with ArtifactJob(run, "generator", request, {}) as job:
        job.claim()
        job.write("model", b"weights")
        job.commit({"steps": 3})


def test_a_finished_artifact_is_reused_and_its_unfinished_state_removed(run: Run) -> None:
    finish(run)
    before, checkpoints = keys(run), Checkpoints()
    with ArtifactJob(run, "generator", REQUEST, {}, unfinished=checkpoints) as job:
        assert job.finished is not None
        assert job.finished.content == {"steps": 3}
        assert [output.key for output in job.finished.outputs] == ["generator/model"]
    assert checkpoints.deleted
    assert keys(run) == before


def test_another_request_is_refused_whether_claimed_or_committed(run: Run) -> None:
    ArtifactJob(run, "generator", REQUEST, {}).claim()
    with pytest.raises(BadInput, match="seed: 0 stored, 1 requested"):
        ArtifactJob(run, "generator", OTHER, {}).claim()
    finish(run)
    with pytest.raises(BadInput, match="seed: 0 stored, 1 requested"):
        ArtifactJob(run, "generator", OTHER, {})


@pytest.mark.parametrize(
    ("error", "left"), [(StageFailed, set()), (KeyboardInterrupt, {"generator/request.json", "generator/model"})]
)
def test_only_a_failure_for_good_discards_what_was_claimed(run: Run, error: type[BaseException], left: set[str]) -> None:
    checkpoints = Checkpoints()

    def fail() -> None:
        with ArtifactJob(run, "generator", REQUEST, {}, unfinished=checkpoints, discard_on=(StageFailed,)) as job:
            job.claim()
            job.write("model", b"weights")
            raise error

    with pytest.raises(error):
        fail()
    assert keys(run) == left
    assert checkpoints.deleted is not bool(left)


def test_a_failure_before_the_claim_discards_nothing_of_others(run: Run) -> None:
    ArtifactJob(run, "generator", REQUEST, {}).claim()
    with pytest.raises(StageFailed), ArtifactJob(run, "generator", REQUEST, {}, discard_on=(StageFailed,)):
        raise StageFailed
    assert keys(run) == {"generator/request.json"}


def test_a_stale_attempt_neither_writes_nor_commits(run: Run) -> None:
    checkpoints = Checkpoints()
    job = ArtifactJob(run, "generator", REQUEST, {}, unfinished=checkpoints)
    job.claim()
    checkpoints.is_stale = True
    for act in (lambda: job.write("model", b"weights"), lambda: job.commit({})):
        with pytest.raises(Superseded):
            act()
    assert keys(run) == {"generator/request.json"}
    assert not checkpoints.deleted


def test_only_the_main_process_writes_and_all_see_one_manifest(run: Run) -> None:
    def work(is_main_process: bool) -> object:
        with ArtifactJob(run, "generator", REQUEST, {}, is_main_process=is_main_process) as job:
            job.claim()
            job.write("model", b"weights")
            return job.commit({"steps": 3})

    other = work(is_main_process=False)
    assert keys(run) == {"generator/request.json"}
    assert work(is_main_process=True) == other == run.find("generator")


def test_a_larger_request_extends_a_finished_artifact(run: Run) -> None:
    def extends(stored: Request, wanted: Request) -> bool:
        return (stored, wanted) == (REQUEST, MORE)

    finish(run)
    with ArtifactJob(run, "generator", MORE, {}, extends=extends) as job:
        assert job.finished is None
        job.claim()
        found = run.find("generator")
        assert found is not None
        assert found.request == REQUEST, "readers see the smaller one until the commit"
        job.commit({"steps": 4})
    found = run.find("generator")
    assert found is not None
    assert found.request == MORE
