"""Exit codes of the commands, and the exceptions that carry them.

A scheduler reads the exit code. 64 and 65 must never be retried. Retry 75 at once. 66 is not a failure of the stage:
a newer attempt runs it. It must not be retried either, as the two attempts would supersede each other in turn.
"""

OK = 0
BAD_INPUT = 64
STAGE_FAILED = 65
SUPERSEDED = 66
INTERRUPTED = 75


class AdaInfWarning(RuntimeWarning):
    """A problem that does not stop the work. The command line prints it as one line."""


class AdaInfError(Exception):
    """Base of the errors whose message is one sentence for the user: what was wrong, where, and how to fix it."""

    exit_code = 1


class BadInput(AdaInfError):
    """The recipe, the data or the run folder is invalid; a retry without a change cannot succeed."""

    exit_code = BAD_INPUT


class StageFailed(AdaInfError):
    """A stage ran and failed permanently, for example by a loss that is not finite."""

    exit_code = STAGE_FAILED


class Superseded(AdaInfError):
    """A newer attempt of the stage has taken over; this one must stop and leave everything in the run as it is."""

    exit_code = SUPERSEDED


class Interrupted(AdaInfError):
    """The command was asked to stop and has saved its state: the same command resumes."""

    exit_code = INTERRUPTED


class Stopped(BaseException):
    """A signal arrived outside a loop that saves. Not an `Exception`: code that handles corrupt files must not catch it."""

    exit_code = INTERRUPTED
