"""The recipe that the controller follows: the applied one, or the last valid one.

An applied recipe is invalid if it cannot be read, or if it conflicts with an artifact that the run contains already. The run
has a copy of each recipe that was valid, and the Job of each attempt names the one that it was created from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adainf.errors import AdaInfError, BadInput
from adainf.kubernetes.controller.run_state import RunState, recipe_key
from adainf.kubernetes.controller.state import Attempt
from adainf.kubernetes.controller.templates import Owner, RecipeRef
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.records import sha256
from adainf.recipe import Recipe

_STORE_STARTUP_S = 900
"""Time-out for a store that is still starting: after it, a store that never responded is bad input."""


@dataclass(frozen=True)
class Loaded:
    """A recipe, its copy in the run, and the reader of the run's state for it."""

    recipe: Recipe
    ref: RecipeRef
    run_state: RunState


@dataclass(frozen=True)
class Selection:
    """The recipe to follow, and what the run contains of it."""

    loaded: Loaded | None
    """None if no recipe is valid."""
    finished: frozenset[str] = frozenset()
    conflicts: Mapping[str, str] = field(default_factory=dict)
    """Artifact → error, as `RunState.finished` returns them."""
    problem: str = ""
    """Why the applied recipe is not followed. Empty if it is."""


class RecipeSource:
    """Reads the applied recipe, and remembers the last valid one."""

    def __init__(self, run: Run, owner: Owner, file: Path) -> None:
        self._run, self._owner, self._file = run, owner, file
        self._applied: Loaded | None = None
        self._valid: Loaded | None = None
        self._began = time.monotonic()

    def select(self, attempts: Sequence[Attempt]) -> Selection:
        """The recipe to follow. Raises as the store does."""
        try:
            applied = self._read(first=not attempts)
        except BadInput as error:
            chosen, problem = Selection(None), str(error)
        else:
            chosen = Selection(applied, *applied.run_state.finished())
            if not chosen.conflicts:
                self._valid = applied
                return chosen
            problem = next(iter(chosen.conflicts.values()))
        last = self._valid or self._of_newest_attempt(attempts)
        if last is None or (chosen.loaded and last.ref == chosen.loaded.ref):
            return chosen if chosen.loaded else Selection(None, problem=problem)
        finished, conflicts = last.run_state.finished()
        if chosen.loaded and conflicts:  # an artifact is corrupt: no recipe helps
            return chosen
        return Selection(last, finished, conflicts, problem)

    def _read(self, first: bool) -> Loaded:
        """The applied recipe. Stores a copy of it in the run.

        Raises `BadInput` for an invalid recipe, and for a store that rejects the copy before the first Job. Afterwards, and for
        a store that may still be starting (that of jobs/adainf-cpu.yaml), raises as the store does.
        """
        try:
            data = self._file.read_bytes()
        except OSError as error:
            raise BadInput(f"cannot read {self._file} ({error.strerror}): apply ConfigMap/{self._owner.name}-recipe") from None
        digest = sha256(data)
        if self._applied is None or self._applied.ref.sha256 != digest:
            recipe = load_recipe(self._file)
            run_state = RunState(self._run, recipe)
            self._applied = Loaded(recipe, RecipeRef(self._store(run_state, data, first), digest), run_state)
        return self._applied

    def _store(self, run_state: RunState, recipe: bytes, first: bool) -> str:
        """Store a copy of the recipe in the run. Returns its URI. Raises as `_read`."""
        try:
            return run_state.store_recipe(recipe)
        except (AdaInfError, OSError) as error:
            permanent = isinstance(error, BadInput | OSError) or time.monotonic() >= self._began + _STORE_STARTUP_S
            if not (first and permanent):
                raise AdaInfError(str(error)) from None
            raise BadInput(
                f"the run's store cannot be used: {error}. Fix its address in ConfigMap/{self._owner.name}-store and its keys "
                f"in Secret/{self._owner.name}-s3, then delete Job/{self._owner.name} and apply again"
            ) from None

    def _of_newest_attempt(self, attempts: Sequence[Attempt]) -> Loaded | None:
        """The recipe of the newest attempt. A new process of the controller has no other memory."""
        for attempt in sorted(attempts, key=lambda attempt: attempt.created, reverse=True):
            uri = self._run.locate(recipe_key(attempt.recipe_sha256))
            try:
                recipe = load_recipe(uri, digest=attempt.recipe_sha256)
            except BadInput:  # the copy was deleted, or changed
                continue
            self._valid = Loaded(recipe, RecipeRef(uri, attempt.recipe_sha256), RunState(self._run, recipe))
            return self._valid
        return None
