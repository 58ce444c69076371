"""What search in memory refuses; what it finds is in `tests/data/test_trec_files.py`."""

from __future__ import annotations

import pytest
import torch

from optical_hf import search

EYE, NAN, INFINITY = torch.eye(2), torch.tensor([[1.0, torch.nan]]), torch.tensor([[1.0, -torch.inf]])


@pytest.mark.parametrize(
    "queries, documents, message",
    [
        ([EYE, INFINITY], [EYE, EYE], "Query 'q2' has NaN or infinity in its vectors"),
        # The best of this document's tokens is a number: its scores would show nothing.
        ([EYE, EYE], [EYE, torch.cat([INFINITY, EYE])], "Document 'd2' has NaN or infinity in its vectors"),
        (torch.cat([INFINITY, NAN]), EYE, "Query 'q1' has NaN or infinity in its vectors"),
        (EYE, torch.cat([EYE[:1], NAN]), "Document 'd2' has NaN or infinity in its vectors"),
        ([EYE, torch.empty(0, 2)], [EYE, EYE], "Query 'q2' has no tokens: nothing of it can be scored"),
        ([EYE, EYE], [torch.empty(0, 2), EYE], "Document 'd1' has no tokens"),
        ([EYE, EYE[0]], [EYE, EYE], r"Query 'q2' has the shape \(2,\) in place of \(tokens, dim\)"),
        ([EYE, EYE], [EYE, torch.eye(3)], "Document 'd2' has vectors of size 3, not of size 2"),
        (torch.eye(2, 3), EYE, "Query 'q1' has vectors of size 3, not of size 2"),
        (EYE * 3e38, EYE * 3e38, "Query 'q1' has NaN or infinite scores: its vectors are too large"),
    ],
)
def test_what_cannot_be_scored_is_named(queries, documents, message):
    with pytest.raises(ValueError, match=message):
        search(queries, documents, ["d1", "d2"], ["q1", "q2"])


@pytest.mark.parametrize("k", [-1, 0, 1.5, None, True])
def test_numbers_of_results_that_are_none(k):
    with pytest.raises(ValueError, match=f"k must be .*at least 1, got {k}"):
        search(EYE, EYE, ["d1", "d2"], ["q1", "q2"], k=k)
