"""The tests of docs/job-semantics.md on the cluster of KUBECONFIG, to compare the simulated cluster with a real one.

    KUBECONFIG=… ADAINF_E2E_IMAGE_CONTROLLER=… python -m pytest tests/e2e/test_semantics.py -m slow -ra

Takes ten minutes. The pods are Python programs in that image, in a temporary namespace per test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster import test_job_semantics as semantics
from tests.e2e.real import RealCluster

NEEDED = ("KUBECONFIG", "ADAINF_E2E_IMAGE_CONTROLLER")
MISSING = [name for name in NEEDED if not os.environ.get(name)]
NOT_HERE = {
    "test_a_row_for_each_test",
    # They disturb other workloads on the nodes, or need GPUs.
    *("test_insufficient_gpus", "test_cordoned_node", "test_dead_node", "test_removed_node"),
    "test_names_of_pods",  # reads the simulator's hosts file; gangs on a real cluster test DNS names
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no cluster is configured: set {', '.join(MISSING)}"),
]

globals().update({name: test for name, test in vars(semantics).items() if name.startswith("test_") and name not in NOT_HERE})


@pytest.fixture
def cluster() -> Iterator[RealCluster]:
    with RealCluster(os.environ["ADAINF_E2E_IMAGE_CONTROLLER"]) as cluster:
        yield cluster
