"""What to do next, as a pure function of what is seen, the time included.

The same is decided again until it shows, so that nothing is lost if the controller is killed between deciding and doing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adainf.errors import BAD_INPUT, OK, STAGE_FAILED
from adainf.kubernetes.controller.actions import Action, Create, Finish, Mirror, Release, Tell
from adainf.kubernetes.controller.failures import Cause, cause_of
from adainf.kubernetes.controller.pods import is_stuck, watch_pods
from adainf.kubernetes.controller.state import Attempt, Observed
from adainf.kubernetes.controller.tasks import Task


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds."""

    backoff_s: float = 10
    """Before the next attempt; twice as long after each that brought nothing."""
    backoff_most_s: float = 300
    stuck_s: float = 60
    """For a pod beyond its grace, before its node counts as lost."""


def decide(seen: Observed, patience: Patience) -> list[Action]:
    """The actions to take now, in this order; a `Finish` comes last and alone ends the chain."""
    actions = [action for task in seen.tasks.values() for action in _task(seen, task, patience)]
    if seen.wrong:
        actions.append(Finish(BAD_INPUT, seen.wrong))
    ends = [action for action in actions if isinstance(action, Finish)]
    if ends:
        # What else runs is told to save and let go: nobody would start it again, and nobody is left to look after it.
        told = [action for action in actions if isinstance(action, Tell)]
        held = [Release(attempt.job) for attempt in seen.attempts if attempt.state == "active" and not attempt.released]
        return [*told, *held, ends[0]]
    if all(_settled(seen, task, patience) for task in seen.tasks):
        return [*actions, Finish(OK, "every stage is done")]
    return actions


def _task(seen: Observed, task: Task, patience: Patience) -> Iterator[Action]:
    attempts = seen.attempts_of(task.name)
    latest = attempts[-1] if attempts else None
    if latest is not None:
        yield from _attend(seen, task, latest, patience)
    if task.name in seen.done or not all(_settled(seen, before, patience) for before in task.after):
        return
    token = seen.tokens.get(task.name, "")
    if latest is None:
        yield Create(task.name, 1, token)
        return
    if latest.state == "active":
        return
    if _is_current(seen, task, latest) or latest.state == "failed":
        cause, barren = _cause(seen, latest), _barren(seen, task, attempts, token)
        yield Tell("AttemptFailed", latest.job, f"{task.name}, attempt {latest.number}: {cause.sentence}")
        permanent = _permanent(seen, task, attempts, cause, barren)
        if permanent is not None:
            yield permanent
            return
        delay_s = _delay_s(latest, cause, barren, patience)
    else:
        delay_s = 0.0  # it ended well, for a recipe that asked for less
    if _is_over(seen, latest, patience) and seen.now >= latest.since + delay_s:
        yield Create(task.name, latest.number + 1, token)


def _attend(seen: Observed, task: Task, attempt: Attempt, patience: Patience) -> Iterator[Action]:
    """See to an attempt while its pods are there."""
    if attempt.state in ("active", "ending"):
        yield from watch_pods(seen, task, attempt, patience.stuck_s)
    if attempt.state != "active":
        return
    progress = seen.progress.get(attempt.job, "")
    if progress not in ("", attempt.progress):
        yield Mirror(attempt.job, progress)
    if attempt.template_hash != seen.templates[task.stage].hash:
        yield Tell("TemplateChanged", attempt.job, f"{attempt.job} goes on by the template it began with", warning=False)
    if attempt.recipe_sha256 != seen.recipe_sha256:
        yield Tell("RecipeChanged", attempt.job, f"{attempt.job} goes on by the recipe it began with", warning=False)


def _settled(seen: Observed, name: str, patience: Patience) -> bool:
    """Whether a task is done and holds nothing any longer."""
    return name in seen.done and all(_is_over(seen, attempt, patience) for attempt in seen.attempts_of(name))


def _is_over(seen: Observed, attempt: Attempt, patience: Patience) -> bool:
    """Whether the next may begin: no pod is left, or only such that hang on a lost node.

    Those may come back: the next attempt has names of its own in the network, and checkpoints that it alone may write.
    """
    if attempt.state == "ending":
        left = seen.living_pods_of(attempt)
        stuck = bool(left) and all(is_stuck(pod, seen.now, patience.stuck_s) for pod in left)
        return stuck or seen.now >= attempt.since + attempt.grace_s + patience.stuck_s
    return attempt.state != "active"


def _is_current(seen: Observed, task: Task, attempt: Attempt) -> bool:
    """Whether the next attempt would be of the same template and recipe."""
    return (attempt.template_hash, attempt.recipe_sha256) == (seen.templates[task.stage].hash, seen.recipe_sha256)


def _cause(seen: Observed, attempt: Attempt) -> Cause:
    pods = [pod for pod in seen.pods if pod.job == attempt.job]
    return cause_of(attempt, seen.records.get(attempt.job, ()), pods)


def _barren(seen: Observed, task: Task, attempts: Sequence[Attempt], token: str) -> int:
    """How many attempts in a row, up to the latest, brought nothing that the store shows."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.started_with != token or not _is_current(seen, task, attempt):
            break
        count += _cause(seen, attempt).kind != "superseded"
    return count


def _permanent(seen: Observed, task: Task, attempts: Sequence[Attempt], cause: Cause, barren: int) -> Finish | None:
    """The end of the chain, where another attempt cannot help."""
    latest = attempts[-1]
    if not _is_current(seen, task, latest):
        return None
    what = f"{task.name} failed for good in attempt {latest.number} ({latest.job})"
    if cause.kind == "bad input":
        return Finish(BAD_INPUT, f"{what}: {cause.sentence}")
    if cause.kind == "failed for good":
        return Finish(STAGE_FAILED, f"{what}: {cause.sentence}")
    if cause.kind == "failure" and cause.certain and barren >= 2 and _cause(seen, attempts[-2]) == cause:
        return Finish(STAGE_FAILED, f"{what}, as the attempt before did at the same step: {cause.sentence}")
    if barren >= seen.templates[task.stage].attempts:
        return Finish(STAGE_FAILED, f"{what}, the last of {barren} in a row without progress: {cause.sentence}")
    return None


def _delay_s(attempt: Attempt, cause: Cause, barren: int, patience: Patience) -> float:
    """Back-off with a jitter by the Job's name, so that two runs that wait for the same nodes do not do so in step."""
    if cause.kind == "superseded":  # by a start that still works; taking over in turn would help neither
        return patience.backoff_most_s
    delay_s = min(patience.backoff_s * 2.0 ** max(barren - 1, 0), patience.backoff_most_s)
    return delay_s * (1 + zlib.crc32(attempt.job.encode()) / 2**34)
