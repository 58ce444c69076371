"""What makes the token vectors of a corpus smaller: a lower dimension, fewer of them, and eight bits a number."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]
from torch import Tensor

from ...bounds import check_count


def fit_rotation(vectors: Iterable[Tensor], dim: int) -> Tensor:
    """Find the `dim` directions that keep most of some vectors: their principal components, without centring.

    Without centring, since products with queries are to be kept, not distances from the mean.

    Args:
        vectors (iterable of `torch.Tensor`): each `(tokens, model_dim)`.
        dim (`int`): at most `model_dim`.

    Returns:
        `torch.Tensor`: `(model_dim, dim)`, orthonormal columns, the strongest first. Multiply vectors by it, and bring
        them to length one again.

    Raises:
        ValueError: if `dim` is out of bounds, or there are no vectors.
    """
    second_moment = sum(part.double().T @ part.double() for part in vectors)
    if not isinstance(second_moment, Tensor):
        raise ValueError("There are no vectors to fit a rotation to.")
    check_count("dim", dim, most=len(second_moment))
    directions = torch.linalg.eigh(second_moment).eigenvectors  # by increasing eigenvalue
    return directions[:, -dim:].flip(1).float().contiguous()


def pool_tokens(vectors: Tensor, factor: int) -> Tensor:
    """Replace the token vectors of one passage by the means of clusters of them.

    Ward's hierarchical clustering, cut at one cluster in `factor` tokens, as in
    [Clavié et al., 2024](https://arxiv.org/abs/2409.14683).

    Args:
        vectors (`torch.Tensor` of shape `(tokens, dim)`): of length one.
        factor (`int`): 1 changes nothing.

    Returns:
        `torch.Tensor`: `(clusters, dim)`, of length one, at most `max(1, tokens // factor)` of them.

    Raises:
        ValueError: if `factor` is not positive.
    """
    check_count("factor", factor)
    if factor == 1 or len(vectors) == 1:
        return vectors
    labels = fcluster(linkage(vectors.numpy(), method="ward"), max(1, len(vectors) // factor), criterion="maxclust")
    cluster = torch.from_numpy(labels).long() - 1
    sums = vectors.new_zeros(int(cluster.max()) + 1, vectors.shape[1]).index_add(0, cluster, vectors)
    return F.normalize(sums, dim=1)  # of the direction of the means


def quantize(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Round each vector to integers from -127 to 127, times a scale of its own.

    Args:
        vectors (`torch.Tensor` of shape `(tokens, dim)`): finite.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: int8 `(tokens, dim)` and half-precision scales `(tokens,)`.
    """
    # The scale is rounded first, and the numbers by the rounded one; its floor lets a zero vector stay zero.
    scales = (vectors.abs().amax(dim=1) / 127).clamp(min=1e-4).half()
    return (vectors / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales
