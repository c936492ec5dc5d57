"""The control loop: take a snapshot, reconcile, execute the actions, and wait for the next change."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from adainf.errors import STAGE_FAILED, AdaInfError, BadInput, Stopped
from adainf.kubernetes.controller import labels
from adainf.kubernetes.controller.actions import Action, Create, EmitEvent, Finish
from adainf.kubernetes.controller.api import JOBS, Api, ApiStatusError, Unavailable, connect
from adainf.kubernetes.controller.client_actions import Executor
from adainf.kubernetes.controller.pods import current_conditions
from adainf.kubernetes.controller.reconcile import Timeouts, reconcile
from adainf.kubernetes.controller.restarts import LIMIT, WINDOW_S, recent_failures
from adainf.kubernetes.controller.snapshot import ClusterSnapshot, StoreUnreachable
from adainf.kubernetes.controller.state import ClusterState, Problem
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
        self._wake, self._api, self._owner = threading.Event(), api, owner
        self._snapshot = ClusterSnapshot(api, owner, Run(run_uri), recipe_file, self._wake.set)
        self._executor = Executor(api, owner, self._snapshot.jobs.put, log)
        self._timeouts = Timeouts(
            backoff_s=_seconds("ADAINF_BACKOFF_S", Timeouts.backoff_s),
            termination_timeout_s=_seconds("ADAINF_STUCK_S", Timeouts.termination_timeout_s),
            fix_s=_seconds("ADAINF_FIX_S", Timeouts.fix_s),
        )
        self._dry_run_passed = False
        self._store_lost_at = 0.0
        """Since when the store has been unreachable. 0 while it is reachable."""

    def run(self) -> Finish:
        """Loop until the pipeline ends. Raises `BadInput` if the Role lacks a right, and is not fixed in time."""
        problem, refused_at, counted = "", 0.0, False
        while True:
            try:
                end = None if counted else self._count_restarts()
                counted = True
                end = end or self._step()
                problem, refused_at = "", time.monotonic()
                if end is not None:
                    return end
            except (Unavailable, ApiStatusError) as error:
                refused = isinstance(error, ApiStatusError)
                if refused and time.monotonic() >= refused_at + self._timeouts.fix_s:
                    raise BadInput(
                        f"the API server rejects a request ({error}): apply the manifests again, whose Role has all verbs"
                    ) from None
                if str(error) != problem:
                    log(f"{error}; retrying")
                problem = str(error)
            if self._wake.wait(_POLL_S):
                time.sleep(_COALESCE_S)
            self._wake.clear()

    def _count_restarts(self) -> Finish | None:
        """The end of the pipeline, if the controller's pods have failed too often."""
        job = self._api.get(JOBS, "jobs", self._owner.name)
        before = json.loads(job["metadata"].get("annotations", {}).get(labels.RESTARTS, "[]"))
        count, history = recent_failures(before, job.get("status", {}).get("failed", 0), self._api.now())
        self._executor.publish({labels.RESTARTS: history})
        if count <= LIMIT:
            return None
        message = (
            f"the controller failed {count} times within {WINDOW_S // 3600} hours: read the logs and states of its pods by "
            f"`kubectl describe pods -l {labels.JOB_NAME}={self._owner.name}`, delete Job/{self._owner.name} and apply again"
        )
        end = Finish(STAGE_FAILED, message)
        self._executor.apply(end, {}, self._snapshot.recipe_ref)
        return end

    def _step(self) -> Finish | None:
        """One iteration. Returns the `Finish` if it was the last one."""
        state = self._take_snapshot()
        if not self._wake.is_set():
            self._snapshot.scrape()
        state = self._dry_run(state)
        actions = reconcile(state, self._timeouts)
        if any(isinstance(action, Create) for action in actions):
            state = self._snapshot.take(refresh_templates=True)
            actions = reconcile(state, self._timeouts)
        self._publish(state)
        for action in actions:
            self._execute(action, state)
        return next((action for action in actions if isinstance(action, Finish)), None)

    def _take_snapshot(self) -> ClusterState:
        """As `ClusterSnapshot.take`. Reports a store that is unreachable."""
        try:
            state = self._snapshot.take()
        except StoreUnreachable as error:
            self._store_lost_at = self._store_lost_at or self._api.now()
            note = f"{error}; the controller waits for it"
            self._executor.emit_event(EmitEvent("StoreUnreachable", self._owner.name, note, since=self._store_lost_at))
            self._executor.publish({labels.CONDITIONS: {"": ("StoreUnreachable", note, self._store_lost_at)}})
            raise
        self._store_lost_at = 0.0
        return state

    def _dry_run(self, state: ClusterState) -> ClusterState:
        """Before the first Job: dry-run the creation of all Jobs. A rejection is a problem of its task."""
        if self._dry_run_passed or state.attempts or state.problems or state.recipe_problem:
            return state
        for name, task in state.tasks.items():
            if name in state.done:
                log(f"{name}: already done")
                continue
            try:
                self._executor.dry_run(name, state.templates[task.stage], self._snapshot.recipe_ref)
            except BadInput as error:
                return replace(state, problems={name: Problem("JobRejected", str(error), state.now)})
        self._dry_run_passed = True
        return state

    def _publish(self, state: ClusterState) -> None:
        """Publish what each task waits for, and the conditions of the attempts, for `adainf status`."""
        summary: dict[str, object] = {
            labels.CONDITIONS: current_conditions(state, self._timeouts.termination_timeout_s),
        }
        if state.tasks:  # those of an earlier Job have no Job here
            summary[labels.TASK_SUMMARY] = {
                name: None if name in state.done else sorted(task.after - state.done) for name, task in state.tasks.items()
            }
        self._executor.publish(summary)

    def _execute(self, action: Action, state: ClusterState) -> None:
        try:
            self._executor.apply(action, state.templates, self._snapshot.recipe_ref)
        except BadInput as error:
            rejected = str(error)
        else:
            rejected = ""
        if isinstance(action, Create):
            self._snapshot.created(action.task, rejected)


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
