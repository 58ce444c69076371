"""Losses on the scores of queries over passages: contrast, and what a teacher's scores say."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_SIMILARITIES = 1 << 24  # held at once by `maxsim_means`: 64 MB


def maxsim_means(queries: Tensor, query_mask: Tensor, passages: Tensor, passage_mask: Tensor) -> Tensor:
    r"""Score every query over every passage by MaxSim, as the mean over the query's tokens, with a gradient.

    A mean, since the temperature of a softmax over sums would depend on the length of the query. Similarities are
    computed for some queries at a time, and once more for the gradient, so that memory does not grow with the batch.

    Args:
        queries (`torch.Tensor` of shape `(queries, query_tokens, dim)`): token vectors.
        query_mask (`torch.BoolTensor` of shape `(queries, query_tokens)`): which of them are scored.
        passages (`torch.Tensor` of shape `(passages, passage_tokens, dim)`): token vectors.
        passage_mask (`torch.BoolTensor` of shape `(passages, passage_tokens)`): which of them are scored; of a passage
            without any, the scores are -2.

    Returns:
        `torch.Tensor`: `(queries, passages)`, float32, from -1 to 1.
    """
    # In float32 under autocast too: differences of scores are small.
    vectors, mask = passages.float().flatten(0, 1).T, passage_mask
    rows = max(1, _SIMILARITIES // max(1, queries.shape[1] * vectors.shape[1]))
    parts = zip(queries.float().split(rows), query_mask.split(rows), strict=True)
    with torch.autocast(queries.device.type, enabled=False):
        if queries.shape[0] <= rows:
            return torch.cat([_maxsim_means(*part, vectors, mask) for part in parts])
        return torch.cat([checkpoint(_maxsim_means, *part, vectors, mask, use_reentrant=False) for part in parts])


def _maxsim_means(queries: Tensor, query_mask: Tensor, vectors: Tensor, passage_mask: Tensor) -> Tensor:
    similarities = (queries.flatten(0, 1) @ vectors).unflatten(1, passage_mask.shape)
    best = similarities.masked_fill(~passage_mask, -2.0).amax(2).unflatten(0, query_mask.shape)
    return (best * query_mask[..., None]).sum(1) / query_mask.sum(1, keepdim=True)


def info_nce(scores: Tensor, positives: Tensor, allowed: Tensor) -> Tensor:
    """Contrast each query's passage with the others (InfoNCE, arXiv 1807.03748, eq. 4).

    Args:
        scores (`torch.Tensor` of shape `(queries, passages)`): divided by the temperature.
        positives (`torch.LongTensor` of shape `(queries,)`): the passage of each query.
        allowed (`torch.BoolTensor` of shape `(queries, passages)`): which passages it is contrasted with, its own
            included: one that answers the query as well would be pushed away.

    Returns:
        `torch.Tensor`: `(queries,)`.
    """
    return F.cross_entropy(scores.masked_fill(~allowed, float("-inf")), positives, reduction="none")


def score_divergence(scores: Tensor, targets: Tensor, given: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the scores of a query's own passages from a teacher's, both softened.

    Args:
        scores (`torch.Tensor` of shape `(queries, own_passages)`): divided by the temperature.
        targets (`torch.Tensor` of shape `(queries, own_passages)`): the teacher's, divided by theirs.
        given (`torch.BoolTensor` of shape `(queries, own_passages)`): which are there; at least one a query.

    Returns:
        `torch.Tensor`: `(queries,)`.
    """
    targets = targets.masked_fill(~given, float("-inf")).log_softmax(1).masked_fill(~given, 0.0)
    scores = scores.masked_fill(~given, float("-inf")).log_softmax(1).masked_fill(~given, 0.0)
    return (targets.exp() * given * (targets - scores)).sum(1)


def margin_mse(scores: Tensor, targets: Tensor, given: Tensor) -> Tensor:
    """Squared difference of the margins of the first passage over the others (MarginMSE, arXiv 2010.02666, eq. 2).

    Args:
        scores, targets, given: as [`score_divergence`]; the first passage is the positive.

    Returns:
        `torch.Tensor`: `(queries,)`, the mean over the negatives that are there; 0 without any.
    """
    differences = ((scores[:, :1] - scores) - (targets[:, :1] - targets))[:, 1:].masked_fill(~given[:, 1:], 0.0)
    return differences.square().sum(1) / given[:, 1:].sum(1).clamp(min=1)
