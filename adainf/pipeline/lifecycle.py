"""The lifecycle of an artifact: inputs, request, reuse, claim, commit and discard, in one context manager for every stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from pydantic import BaseModel, JsonValue

from adainf.pipeline.artifacts import Extends, Run, never_extends
from adainf.pipeline.graph import request, require_inputs
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Output, Request
from adainf.recipe import Recipe


class Unfinished(Protocol):
    """State that a stage keeps while it is unfinished: its checkpoints (`adainf.pipeline.checkpoints.Checkpoints`)."""

    def check(self) -> None:
        """Raise `Superseded` where a newer attempt has taken over."""

    def delete(self) -> None:
        """Remove all of it."""


class ArtifactJob:
    """One artifact while a stage works on it, by the request that it answers; see `artifact`.

    A ``with`` block that ends with one of `discard_on` removes what it has claimed: the artifact can never be committed. Any
    other exception keeps it, so that the next run resumes. Only the main process of a launch writes.

    Raises `BadInput`, naming the settings that differ, where another request is committed under this name.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        request: Request,
        inputs: dict[str, Manifest],
        *,
        extends: Extends = never_extends,
        unfinished: Unfinished | None = None,
        is_main_process: bool = True,
        discard_on: tuple[type[Exception], ...] = (),
    ) -> None:
        self.run, self.name, self.request, self.inputs = run, name, request, inputs
        self.finished = run.find_for(name, request, extends)
        """The artifact, where it is committed for the same request; then the stage has nothing to do."""
        self._extends, self._unfinished, self._is_main = extends, unfinished, is_main_process
        self.outputs: list[Output] = []
        """What `commit` publishes: `write` adds to it; a stage may add objects that an interrupted attempt has written."""
        self._claimed, self._discard_on = False, discard_on
        if self.finished is not None and unfinished is not None:
            unfinished.delete()

    def claim(self) -> None:
        """Take the artifact's folder for this request; call it after all checks that a changed recipe could fix.

        Raises `BadInput`, naming the settings that differ, where the folder belongs to another request.
        """
        finished = self.run.claim(self.name, self.request, self._extends)
        self._claimed = finished is None

    def write(self, file_name: str, data: bytes) -> Output:
        """Put one object into the artifact's folder. Raises `Superseded` where a newer attempt has taken over."""
        output = Output.of(f"{self.name}/{file_name}", data)
        self.outputs.append(output)
        if self._is_main:
            self._check_fence()
            self.run.store.put(output.key, data)
        return output

    def commit(self, content: BaseModel | dict[str, JsonValue]) -> Manifest:
        """Publish the artifact, then delete the state of the unfinished stage.

        Raises `Superseded` where a newer attempt has taken over, `BadInput` where another process has committed other bytes.
        """
        body = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
        manifest = Manifest(request=self.request, outputs=self.outputs, content=body)
        if not self._is_main:
            return manifest
        self._check_fence()
        self.run.commit(self.name, manifest, self._extends)
        if self._unfinished is not None:
            self._unfinished.delete()
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, self._discard_on) and self._claimed and self._is_main:
            if self._unfinished is not None:
                self._unfinished.delete()
            self.run.discard(self.name)

    def _check_fence(self) -> None:
        if self._unfinished is not None:
            self._unfinished.check()


def artifact(
    recipe: Recipe,
    run: Run,
    name: str,
    reporter: Reporter,
    label: str,
    *,
    data_sha256: Callable[[Manifest | None], str | None] = lambda finished: None,
    extends: Extends = never_extends,
    unfinished: Unfinished | None = None,
    is_main_process: bool = True,
    discard_on: tuple[type[Exception], ...] = (),
) -> ArtifactJob:
    """The artifact `name` of the recipe in this run, for a stage to work on.

    The inputs are required (`BadInput` where one is missing or stale), the request is built and the artifact is looked up:
    `finished` is set where it is committed for this request, and the stage returns it; `reporter` says so after `label`.

    `data_sha256` gives the digest of data from outside the run; it gets the finished artifact, if there is one. `extends` as in
    `Run.claim`. `unfinished`: the checkpoints of the stage.

    Example::

        with artifact(recipe, run, "plan", reporter, "plan") as job:
            if job.finished:
                return job.finished
            job.claim()
            return job.commit(make_plan(job.inputs))
    """
    inputs = require_inputs(recipe, run, name)
    found = run.find(name)
    wanted = request(recipe, name, inputs, data_sha256(found))
    job = ArtifactJob(
        run,
        name,
        wanted,
        inputs,
        extends=extends,
        unfinished=unfinished,
        is_main_process=is_main_process,
        discard_on=discard_on,
    )
    if job.finished is not None:
        reporter.info(f"{label}: done already (same recipe and inputs); skipped")
    return job
