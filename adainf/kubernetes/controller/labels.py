"""Keys of the labels and annotations that the controller reads and writes."""

from __future__ import annotations

PREFIX = "adainf.dev/"

RUN = f"{PREFIX}run"
STAGE = f"{PREFIX}stage"
ARM = f"{PREFIX}arm"
ATTEMPT = f"{PREFIX}attempt"
GANG = f"{PREFIX}gang"

AFTER = f"{PREFIX}after"
START_TIMEOUT = f"{PREFIX}start-timeout"
ATTEMPTS = f"{PREFIX}attempts"

TEMPLATE_HASH = f"{PREFIX}template-hash"
RECIPE = f"{PREFIX}recipe"
STARTED_WITH = f"{PREFIX}started-with"
PROGRESS = f"{PREFIX}progress"
RELEASED = f"{PREFIX}released"
"""On the Job of an attempt that the controller terminated."""
TASK_SUMMARY = f"{PREFIX}outline"
"""On the controller's Job: task → the tasks it waits for, or null if it is done. JSON."""
CONDITIONS = f"{PREFIX}conditions"
"""On the controller's Job: task, or empty for the pipeline → reason, message and start of its worst condition. JSON."""

RESTARTS = f"{PREFIX}restarts"
"""On the controller's Job: its history of failures (`restarts.History`). JSON."""

JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"

CONTROLLER = f"{PREFIX}controller"
"""`reportingController` of Events."""
