"""The environment variables that describe the pod of this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from adainf.errors import BadInput
from adainf.pipeline.stages import STAGES

GANGS = tuple(stage.name for stage in STAGES.values() if stage.is_gang)
_RESERVED = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")
"""Variables that only the launcher may set, for its child processes."""


@dataclass(frozen=True)
class Pod:
    """One pod of a stage's Job. Outside Kubernetes: the machine, as the only node."""

    job: str
    index: int
    """Completion index of the pod, which is its node rank in a gang."""
    nodes: int
    processes: str
    """`auto` (one per GPU), a number (of CPU processes), or empty (one process, on the default device)."""
    namespace: str
    ip: str | None
    domain: str
    service: str
    """The headless Service that provides the DNS names of pods."""
    master_port: int
    progress_port: int

    @classmethod
    def here(cls, stage: str, environment: Mapping[str, str] = os.environ) -> Pod:
        """Read the environment. Raises `BadInput` for an invalid, inconsistent or reserved variable."""
        reserved = [name for name in _RESERVED if name in environment]
        if reserved:
            raise BadInput(
                f"{', '.join(reserved)} {'is' if len(reserved) == 1 else 'are'} set in the pod's environment, but only the "
                "launcher may set ranks and addresses: remove the env entry from the template"
            )
        nodes = _number(environment, "ADAINF_NNODES", "1", least=1)
        index = _number(environment, "JOB_COMPLETION_INDEX", "" if nodes > 1 and stage in GANGS else "0", least=0)
        if stage not in GANGS and nodes > 1:
            raise BadInput(f"ADAINF_NNODES is {nodes}, but stage {stage} runs on one node: remove it from the template")
        if stage in GANGS and index >= nodes:
            raise BadInput(
                f"JOB_COMPLETION_INDEX is {index}, but ADAINF_NNODES is {nodes}: set ADAINF_NNODES to the Job's completions"
            )
        job = environment.get("JOB_NAME", "")
        if nodes > 1 and not job:
            raise BadInput(
                "JOB_NAME is not set in the pod's environment, so the nodes cannot find the first one: set it by the downward "
                "API from the label batch.kubernetes.io/job-name"
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
            environment.get("ADAINF_SERVICE") or "adainf-workers",
            _number(environment, "ADAINF_MASTER_PORT", "29500", least=1),
            _number(environment, "ADAINF_PROGRESS_PORT", "8080", least=0),
        )

    @property
    def master(self) -> str:
        """DNS name of the pod with index 0."""
        return f"{self.job}-0.{self.service}.{self.namespace}.svc.{self.domain}"


def _number(environment: Mapping[str, str], name: str, default: str, least: int) -> int:
    text = environment.get(name, default)
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        value = f"is {text!r}" if text else "is not set"
        raise BadInput(f"{name} {value}, but must be an integer of at least {least}: fix it in the pod's template")
    return int(text)
