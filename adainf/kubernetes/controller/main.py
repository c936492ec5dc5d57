"""The control loop: take a snapshot, reconcile, execute the actions, and wait for the next change."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from adainf.errors import AdaInfError, BadInput, Stopped
from adainf.kubernetes.controller.actions import Action, Create, EmitEvent, Finish
from adainf.kubernetes.controller.api import Api, ApiStatusError, Unavailable, connect
from adainf.kubernetes.controller.client_actions import Executor
from adainf.kubernetes.controller.reconcile import Timeouts, reconcile
from adainf.kubernetes.controller.snapshot import ClusterSnapshot, StoreUnreachable
from adainf.kubernetes.controller.state import ClusterState
from adainf.kubernetes.controller.templates import Owner
from adainf.pipeline.artifacts import Run
from adainf.runtime import signals

_POLL_S = 5
"""Interval at which the store is read while nothing changes in the cluster."""
_COALESCE_S = 0.2
"""Changes come in bursts: the loop waits this long after the first one."""


def main() -> int:
    """Run the pipeline that the environment specifies to its end. Returns the exit code."""
    signals.install()
    try:
        owner = Owner(_setting("OWNER_NAME"), _setting("OWNER_UID"), _setting("POD_NAMESPACE"))
        controller = Controller(connect(owner.namespace), owner, _setting("ADAINF_RUN"), Path(_setting("ADAINF_RECIPE")))
        return controller.run().code
    except (AdaInfError, Stopped) as error:
        log(str(error))
        return error.exit_code


class Controller:
    """The controller of one run."""

    def __init__(self, api: Api, owner: Owner, run_uri: str, recipe_file: Path) -> None:
        self._wake, self._owner = threading.Event(), owner
        self._snapshot = ClusterSnapshot(api, owner, Run(run_uri), recipe_file, self._wake.set)
        self._executor = Executor(api, owner, self._snapshot.jobs.put, log)
        self._timeouts = Timeouts(
            backoff_s=_seconds("ADAINF_BACKOFF_S", Timeouts.backoff_s),
            termination_timeout_s=_seconds("ADAINF_STUCK_S", Timeouts.termination_timeout_s),
        )
        self._dry_run_passed = False

    def run(self) -> Finish:
        """Loop until the pipeline ends. Raises `BadInput` if the Role lacks a right that the loop itself needs."""
        problem = ""
        while True:
            try:
                end = self._step()
                problem = ""
                if end is not None:
                    return end
            except Unavailable as error:
                if str(error) != problem:
                    log(f"{error}; retrying")
                problem = str(error)
            except ApiStatusError as error:
                raise BadInput(
                    f"the API server rejects a request ({error}): apply jobs/adainf.yaml again, whose Role has all verbs"
                ) from None
            if self._wake.wait(_POLL_S):
                time.sleep(_COALESCE_S)
            self._wake.clear()

    def _step(self) -> Finish | None:
        """One iteration. Returns the `Finish` if it was the last one."""
        state = self._take_snapshot()
        if not self._wake.is_set():
            self._snapshot.scrape()
        try:
            self._dry_run(state)
            actions = reconcile(state, self._timeouts)
            if any(isinstance(action, Create) for action in actions):
                state = self._snapshot.take(refresh_templates=True)
                actions = reconcile(state, self._timeouts)
            return self._execute(state, actions)
        except BadInput as error:
            state = replace(state, bad_input=str(error))
            return self._execute(state, reconcile(state, self._timeouts))

    def _take_snapshot(self) -> ClusterState:
        """As `ClusterSnapshot.take`. Emits an Event if the store is unreachable."""
        try:
            return self._snapshot.take()
        except StoreUnreachable as error:
            self._executor.emit_event(EmitEvent("StoreUnreachable", self._owner.name, f"{error}; the controller waits for it"))
            raise

    def _dry_run(self, state: ClusterState) -> None:
        """Once, before the first Job: dry-run the creation of all Jobs. Raises `BadInput` if the API server rejects one."""
        if self._dry_run_passed or state.bad_input:
            return
        for name, task in state.tasks.items():
            if name in state.done:
                log(f"{name}: already done")
            else:
                self._executor.dry_run(name, state.templates[task.stage], self._snapshot.recipe_ref)
        self._dry_run_passed = True

    def _execute(self, state: ClusterState, actions: list[Action]) -> Finish | None:
        if state.tasks:
            self._executor.publish_task_summary(state.tasks, state.done)
        for action in actions:
            self._executor.apply(action, state.templates, self._snapshot.recipe_ref)
        return next((action for action in actions if isinstance(action, Finish)), None)


def log(text: str) -> None:
    """Print one line with a timestamp, unbuffered."""
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def _setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise BadInput(f"environment variable {name} is not set: start the controller by `kubectl apply -f jobs/adainf.yaml`")
    return value


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, str(default))
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"invalid {name} {text!r}: set it to a number of seconds in the controller's environment") from None
