"""What the exit code of a command means, and the exceptions that carry it.

A scheduler reads the code: 64 must never be tried again, 75 should be, at once. 66 is no failure of the stage, which another
start goes on with, and must not be tried again: the two would take it from each other in turn.
"""

OK = 0
BAD_INPUT = 64
STAGE_FAILED = 65
SUPERSEDED = 66
INTERRUPTED = 75


class AdaInfError(Exception):
    """Base of the errors whose message is one sentence for the user: what, where, and the mend."""

    exit_code = 1


class BadInput(AdaInfError):
    """The recipe, the data or the run folder is wrong; trying again without a change cannot help."""

    exit_code = BAD_INPUT


class StageFailed(AdaInfError):
    """A stage ran and failed for good, for example a loss that is no longer finite."""

    exit_code = STAGE_FAILED


class Superseded(AdaInfError):
    """Another start of the stage has taken over and goes on; this one must leave alone all that it finds."""

    exit_code = SUPERSEDED


class Interrupted(AdaInfError):
    """The command was asked to stop and saved what it had: the same command goes on from there."""

    exit_code = INTERRUPTED


class Stopped(BaseException):
    """A signal came where nothing waits to save. No `Exception`: whoever reads damaged files must not take it for damage."""

    exit_code = INTERRUPTED
