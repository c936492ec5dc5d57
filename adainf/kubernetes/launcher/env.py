"""What the pod that this process runs in says of itself, by environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from adainf.errors import BadInput
from adainf.pipeline.stages import STAGES

GANGS = tuple(stage.name for stage in STAGES.values() if stage.is_gang)
SERVICE = "adainf-workers"
"""The headless Service that gives pods their names."""

_OWN = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")
"""What the launcher alone tells its processes."""


@dataclass(frozen=True)
class Pod:
    """One pod of a stage's Job; without a Job, one machine that is the only node."""

    job: str
    index: int
    """Number of this pod in its Job, which is the node's rank in a gang."""
    nodes: int
    processes: str
    """`auto` (one for each GPU), a number (so many on CPUs), or nothing (one, on whatever device there is)."""
    namespace: str
    ip: str | None
    domain: str
    master_port: int
    progress_port: int

    @classmethod
    def here(cls, stage: str, environment: Mapping[str, str] = os.environ) -> Pod:
        """Read the environment. Raises `BadInput` for what does not fit together, or is the launcher's to set."""
        taken = [name for name in _OWN if name in environment]
        if taken:
            raise BadInput(
                f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} set in the pod's environment, where the launcher "
                "finds ranks and addresses by itself; take the env entry out of the template"
            )
        nodes = _number(environment, "ADAINF_NNODES", "1", least=1)
        index = _number(environment, "JOB_COMPLETION_INDEX", "" if nodes > 1 and stage in GANGS else "0", least=0)
        if stage not in GANGS and nodes > 1:
            raise BadInput(f"ADAINF_NNODES is {nodes}, but {stage} is done by one node alone; leave it out")
        if stage in GANGS and index >= nodes:
            raise BadInput(
                f"JOB_COMPLETION_INDEX is {index}, but ADAINF_NNODES is {nodes}; set ADAINF_NNODES to the Job's completions"
            )
        job = environment.get("JOB_NAME", "")
        if nodes > 1 and not job:
            raise BadInput(
                "JOB_NAME is not set, by which the nodes find the first one; give it by the downward API from the label "
                "batch.kubernetes.io/job-name"
            )
        processes = environment.get("ADAINF_NPROC", "") if stage in GANGS else ""
        if processes not in ("", "auto"):
            _number(environment, "ADAINF_NPROC", "", least=1)
        return cls(
            job or stage,
            index,
            nodes,
            processes,
            environment.get("POD_NAMESPACE", "default"),
            environment.get("POD_IP") or None,
            environment.get("ADAINF_CLUSTER_DOMAIN", "cluster.local"),
            _number(environment, "ADAINF_MASTER_PORT", "29500", least=1),
            _number(environment, "ADAINF_PROGRESS_PORT", "8080", least=0),
        )

    @property
    def master(self) -> str:
        """Full name of the pod with index 0."""
        return f"{self.job}-0.{SERVICE}.{self.namespace}.svc.{self.domain}"


def _number(environment: Mapping[str, str], name: str, default: str, least: int) -> int:
    text = environment.get(name, default)
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        said = f"is {text!r}" if text else "is not set"
        raise BadInput(f"{name} {said}, and should be a number from {least} on; mend it in the pod's template")
    return int(text)
