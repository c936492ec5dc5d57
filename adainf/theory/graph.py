"""The augmentation graph (HaoChen et al. 2021, section 3) and the spectrum of its normalised Laplacian.

Nodes are views. The edge weight of two views is the probability that both are sampled from one image,
w_xx' = E_i[A(x|i) A(x'|i)], where A(x|i) is the probability of view x of image i. The (k + 1)-th smallest eigenvalue is the
connectivity of the paper's theorem 4.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

Vector = NDArray[np.float64]
_DENSE = 64
"""Components up to this many nodes use a dense solver: Lanczos needs more nodes than eigenvalues."""


def image_graph(views_NM: csr_matrix) -> csr_matrix:
    """A(x|i) of N images over M views → N x N adjacency of images, each of degree 1.

    Rows of `views_NM` sum to 1, and every column has an entry. w_ij = sum_x A(x|i) A(x|j) / sum_i A(x|i). With C = A /
    sqrt(column sums) this is C C^T, and the normalised adjacency of the views is C^T C: both have the same nonzero eigenvalues.
    So the N smallest Laplacian eigenvalues of the augmentation graph, those below 1, are those of this smaller graph.
    """
    drawn_M = np.asarray(views_NM.sum(axis=0)).ravel()
    shared_NM = views_NM @ diags(1 / np.sqrt(drawn_M))
    return csr_matrix(shared_NM @ shared_NM.T)


def laplacian_eigenvalues(adjacency_NN: csr_matrix, count: int) -> Vector:
    """The `count` smallest eigenvalues of I - D^-1/2 A D^-1/2, ascending, in 0..2; `adjacency_NN` symmetric, not negative.

    Computed per connected component, so that the multiplicity of 0 is exactly the number of components: Lanczos may miss
    multiple eigenvalues. A node without edges is a component. Raises `ValueError` for more eigenvalues than nodes.
    """
    if count > adjacency_NN.shape[0]:
        raise ValueError(f"a graph of {adjacency_NN.shape[0]} nodes has no {count} eigenvalues")
    _, component_N = connected_components(adjacency_NN, directed=False)
    order_N = np.argsort(component_N, kind="stable")
    parts = np.split(order_N, np.flatnonzero(np.diff(component_N[order_N])) + 1)
    found = [_of_component(adjacency_NN[nodes][:, nodes], count) for nodes in parts]
    return np.sort(np.concatenate(found))[:count]


def _of_component(adjacency_NN: csr_matrix, count: int) -> Vector:
    """The `count` smallest, or all if there are fewer; the first is 0."""
    nodes = adjacency_NN.shape[0]
    if nodes == 1:
        return np.zeros(1)
    scale = diags(1 / np.sqrt(np.asarray(adjacency_NN.sum(axis=0)).ravel()))
    normalised = scale @ adjacency_NN @ scale
    if nodes <= max(_DENSE, 2 * count):
        largest = np.linalg.eigvalsh(normalised.toarray())[-count:]
    else:
        start = np.random.Generator(np.random.Philox(0)).standard_normal(nodes)  # ARPACK's default start vector is random
        lanczos = min(nodes, max(4 * count, 40))
        largest = eigsh(normalised, count, which="LA", v0=start, ncv=lanczos, return_eigenvectors=False)
    smallest = np.sort(1 - largest)
    smallest[0] = 0.0  # exactly, without rounding error
    return smallest
