"""A Kubernetes cluster for tests. What it does as a real one does, with sources: docs/job-semantics.md."""

from tests.cluster.cluster import Cluster
from tests.cluster.processes import Process
from tests.cluster.scripts import Exit, Script

__all__ = ["Cluster", "Exit", "Process", "Script"]
