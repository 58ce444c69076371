from __future__ import annotations

import pytest
import torch

from optical_hf.retrieval.maxsim import maxsim, top_k


def ragged(lengths: list[int], dim: int = 8, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, dim, generator=generator) for length in lengths]


QUERIES = ragged([3, 1, 7, 4, 2], seed=1)
DOCUMENTS = ragged([5, 1, 9, 2, 2, 6, 13], seed=2)


def naive(queries: list[torch.Tensor], documents: list[torch.Tensor]) -> torch.Tensor:
    scores = torch.zeros(len(queries), len(documents))
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            scores[q, d] = sum(max(torch.dot(i, j.float()) for j in document) for i in query)
    return scores


def test_hand_computed():
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    documents = [torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]), torch.tensor([[-1.0, -0.5]])]
    # max(1, 0.6, -1) + max(0, 0.8, 0) = 1.8; one token only, both products negative: -1 - 0.5.
    assert maxsim([query], documents).tolist() == [[pytest.approx(1.8), -1.5]]


@pytest.mark.parametrize("chunk_size", [1, 8, 20, 64, 1 << 24])
def test_equals_naive_loop_in_chunks_of_any_size(chunk_size):
    scores = maxsim(QUERIES, DOCUMENTS, chunk_size=chunk_size)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, naive(QUERIES, DOCUMENTS), rtol=1e-5, atol=1e-5)


def test_half_precision_documents_are_scored_in_float32():
    halves = [document.half() for document in DOCUMENTS]
    torch.testing.assert_close(maxsim(QUERIES, halves), naive(QUERIES, halves), rtol=1e-5, atol=1e-5)


def test_gradient_reaches_the_best_token_only():
    query = torch.tensor([[1.0, 0.0]])
    document = torch.tensor([[0.5, 0.0], [0.9, 0.1]], requires_grad=True)
    maxsim([query], [document]).sum().backward()
    assert document.grad.tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    "queries, documents, shape", [([], DOCUMENTS, (0, 7)), (QUERIES, [], (5, 0)), ([], [], (0, 0))]
)
def test_nothing_to_score(queries, documents, shape):
    assert maxsim(queries, documents).shape == shape


@pytest.mark.parametrize(
    "queries, documents, message",
    [
        (QUERIES, [DOCUMENTS[0], torch.zeros(0, 8)], r"documents\[1\].*has no tokens"),
        ([torch.zeros(0, 8)], DOCUMENTS, r"queries\[0\].*has no tokens"),
        (QUERIES, [DOCUMENTS[0], torch.zeros(2, 9)], r"documents\[1\].*size 9.*size 8"),
        ([QUERIES[0], torch.zeros(2, 4)], DOCUMENTS, r"queries\[1\].*size 4.*size 8"),
        (QUERIES, [torch.zeros(8)], r"documents\[0\] of shape \(8,\) is not \(tokens, dim\)"),
        (QUERIES[0], DOCUMENTS, r"queries\[0\] of shape \(8,\) is not \(tokens, dim\)"),
    ],
)
def test_bad_input_is_named(queries, documents, message):
    with pytest.raises(ValueError, match=message):
        maxsim(queries, documents)


def test_top_k():
    scores, indices = top_k(QUERIES, DOCUMENTS, 3)
    expected = naive(QUERIES, DOCUMENTS)
    assert indices.tolist() == [sorted(range(7), key=lambda d: -row[d])[:3] for row in expected.tolist()]
    torch.testing.assert_close(scores, expected.gather(1, indices), rtol=1e-5, atol=1e-5)


def test_top_k_of_equal_documents_keeps_their_order_and_returns_all_there_are():
    scores, indices = top_k(QUERIES[:1], [DOCUMENTS[0]] * 4, 9)
    assert indices.tolist() == [[0, 1, 2, 3]]
    assert len(set(scores[0].tolist())) == 1


@pytest.mark.parametrize("function, option", [(maxsim, {"chunk_size": 0}), (top_k, {"k": 0})])
def test_bad_options(function, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be at least 1, got 0"):
        function(QUERIES, DOCUMENTS, **option)
