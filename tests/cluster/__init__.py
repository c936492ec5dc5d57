"""A Kubernetes cluster for tests. docs/job-semantics.md lists what it has in common with a real one."""

from tests.cluster.cluster import Cluster
from tests.cluster.processes import Process
from tests.cluster.scripts import Exit, Script

__all__ = ["Cluster", "Exit", "Process", "Script"]
