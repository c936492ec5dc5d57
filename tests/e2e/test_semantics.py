"""The tests of docs/job-semantics.md on the cluster of KUBECONFIG: whether the simulated one does as a real one.

    KUBECONFIG=… ADAINF_E2E_IMAGE_CONTROLLER=… python -m pytest tests/e2e/test_semantics.py -m slow -ra

Ten minutes. The pods are Python programs in that image, in a namespace that each test makes and deletes.
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
    # They take nodes away from whatever else runs there, or need GPUs.
    *("test_insufficient_gpus", "test_cordoned_node", "test_dead_node", "test_removed_node"),
    "test_names_of_pods",  # looks into the simulator's file of hosts; the chain's gangs meet by those names
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no cluster to compare with: set {', '.join(MISSING)}"),
]

globals().update({name: test for name, test in vars(semantics).items() if name.startswith("test_") and name not in NOT_HERE})


@pytest.fixture
def cluster() -> Iterator[RealCluster]:
    with RealCluster(os.environ["ADAINF_E2E_IMAGE_CONTROLLER"]) as cluster:
        yield cluster
