"""How near vectors and scores of two ways of computing them have to be, on any machine's kernels."""

from __future__ import annotations

import torch


def assert_same_vectors(found, expected):
    assert [len(one) for one in found] == [len(one) for one in expected]
    torch.testing.assert_close(torch.cat(list(found)), torch.cat(list(expected)), rtol=0, atol=1e-5)


def assert_same_scores(found, expected, queries):
    """A MaxSim score is the sum of the best cosines of the query's tokens: as near as vectors for each of them."""
    tokens = torch.tensor([len(one) for one in queries])[:, None]
    torch.testing.assert_close(found / tokens, expected / tokens, rtol=0, atol=1e-5)
