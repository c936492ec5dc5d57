"""The loop: look, decide, do, and wait for the next change."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from adainf.errors import AdaInfError, BadInput, Stopped
from adainf.kubernetes.controller.actions import Action, Create, Finish, Tell
from adainf.kubernetes.controller.api import Api, Refused, Unavailable, connect
from adainf.kubernetes.controller.client_actions import Hands
from adainf.kubernetes.controller.reconcile import Patience, decide
from adainf.kubernetes.controller.snapshot import Lookout, StoreSilent
from adainf.kubernetes.controller.state import Observed
from adainf.kubernetes.controller.templates import Owner
from adainf.pipeline.artifacts import Run
from adainf.runtime import signals

_POLL_S = 5
"""How often the store is looked at while nothing changes in the cluster."""
_COALESCE_S = 0.2
"""Changes come in swarms: so long is waited for more of one."""


def main() -> int:
    """Run the chain that the environment names to its end; returns the exit code."""
    signals.install()
    try:
        owner = Owner(_setting("OWNER_NAME"), _setting("OWNER_UID"), _setting("POD_NAMESPACE"))
        chain = Controller(connect(owner.namespace), owner, _setting("ADAINF_RUN"), Path(_setting("ADAINF_RECIPE")))
        return chain.run().code
    except (AdaInfError, Stopped) as error:
        log(str(error))
        return error.exit_code


class Controller:
    """One chain, from wherever it is to its end."""

    def __init__(self, api: Api, owner: Owner, run_uri: str, recipe_file: Path) -> None:
        self._wake, self._owner = threading.Event(), owner
        self._lookout = Lookout(api, owner, Run(run_uri), recipe_file, self._wake.set)
        self._hands = Hands(api, owner, self._lookout.jobs.put, log)
        self._patience = Patience(
            backoff_s=_seconds("ADAINF_BACKOFF_S", Patience.backoff_s), stuck_s=_seconds("ADAINF_STUCK_S", Patience.stuck_s)
        )
        self._rehearsed = False

    def run(self) -> Finish:
        """Until the chain ends. Raises `BadInput` where the Role is not enough to tell even that."""
        problem = ""
        while True:
            try:
                end = self._step()
                problem = ""
                if end is not None:
                    return end
            except Unavailable as error:
                if str(error) != problem:
                    log(f"{error}; trying again")
                problem = str(error)
            except Refused as error:
                raise BadInput(
                    f"the API server refuses ({error}): apply jobs/adainf.yaml again, whose Role has all verbs"
                ) from None
            if self._wake.wait(_POLL_S):
                time.sleep(_COALESCE_S)
            self._wake.clear()

    def _step(self) -> Finish | None:
        """Look once and do what follows from it; the end, if this is it."""
        seen = self._look()
        if not self._wake.is_set():
            self._lookout.scrape()
        try:
            self._rehearse(seen)
            actions = decide(seen, self._patience)
            if any(isinstance(action, Create) for action in actions):
                seen = self._lookout.look(fresh=True)
                actions = decide(seen, self._patience)
            return self._do(seen, actions)
        except BadInput as error:
            seen = replace(seen, wrong=str(error))
            return self._do(seen, decide(seen, self._patience))

    def _look(self) -> Observed:
        """As `Lookout.look`; that the store does not answer is told."""
        try:
            return self._lookout.look()
        except StoreSilent as error:
            self._hands.tell(Tell("StoreSilent", self._owner.name, f"{error}; the chain waits for it"))
            raise

    def _rehearse(self, seen: Observed) -> None:
        """Before anything runs: would the cluster take each Job that is to come? Raises `BadInput` where it would not."""
        if self._rehearsed or seen.wrong:
            return
        for name, task in seen.tasks.items():
            if name in seen.done:
                log(f"{name}: done already")
            else:
                self._hands.rehearse(name, seen.templates[task.stage], self._lookout.source)
        self._rehearsed = True

    def _do(self, seen: Observed, actions: list[Action]) -> Finish | None:
        if seen.tasks:
            self._hands.outline(seen.tasks, seen.done)
        for action in actions:
            self._hands.apply(action, seen.templates, self._lookout.source)
        return next((action for action in actions if isinstance(action, Finish)), None)


def log(text: str) -> None:
    """One line with the time, at once."""
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def _setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise BadInput(f"the environment has no {name}: run this by `kubectl apply -f jobs/adainf.yaml`, which sets it")
    return value


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, str(default))
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{name} is {text!r}; write a number of seconds into the controller's environment") from None
