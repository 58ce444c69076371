from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    MarginMSELoss,
    MultipleNegativesRankingLoss,
)
from torch.nn.functional import normalize

from optical_hf import maxsim
from optical_hf.losses import ranking
from optical_hf.losses.ranking import info_nce, margin_mse, maxsim_means, score_divergence


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def masks(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def test_maxsim_means_are_maxsim_over_the_tokens_of_the_query():
    queries, passages = vectors(3, 4, 8), vectors(5, 7, 8, seed=1)
    query_mask, passage_mask = masks(4, 1, 2), masks(7, 3, 1, 6, 2)
    scores = maxsim_means(queries, query_mask, passages, passage_mask)
    expected = maxsim(
        [query[mask] for query, mask in zip(queries, query_mask, strict=True)],
        [passage[mask] for passage, mask in zip(passages, passage_mask, strict=True)],
    )
    torch.testing.assert_close(scores, expected / query_mask.sum(1, keepdim=True))
    assert maxsim_means(queries, query_mask, passages, passage_mask & False).tolist() == [[-2.0] * 5] * 3


def test_maxsim_means_in_parts_have_the_same_gradient(monkeypatch):
    query_mask, passage_mask = masks(4, 1, 2), masks(7, 3, 1, 6, 2)
    gradients = []
    for most in (1 << 24, 1):
        monkeypatch.setattr(ranking, "_SIMILARITIES", most)
        queries, passages = vectors(3, 4, 8).requires_grad_(), vectors(5, 7, 8, seed=1).requires_grad_()
        scores = maxsim_means(queries, query_mask, passages, passage_mask)
        (scores * torch.arange(15.0).view(3, 5)).sum().backward()
        gradients.append((scores.detach(), queries.grad, passages.grad))
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts)
    assert gradients[0][1].abs().max() > 1


def test_losses_by_hand():
    scores = torch.tensor([[0.0, math.log(2), 5.0]])
    positives = torch.tensor([0])
    # Without the third passage, one of three parts; with it, one of 3 + e^5.
    assert info_nce(scores, positives, torch.tensor([[True, True, False]])).item() == pytest.approx(math.log(3))
    assert info_nce(scores, positives, torch.tensor([[True, True, True]])).item() == pytest.approx(
        math.log(3 + math.exp(5))
    )
    # The teacher says 3/4 and 1/4, the student 1/3 and 2/3; what is not there counts for nothing.
    targets, given = torch.tensor([[math.log(3), 0.0, float("nan")]]), torch.tensor([[True, True, False]])
    expected = 0.75 * math.log(0.75 * 3) + 0.25 * math.log(0.25 * 1.5)
    assert score_divergence(scores, targets, given).item() == pytest.approx(expected)
    # Margins of -log 2 and log 3.
    assert margin_mse(scores, targets.nan_to_num(), given).item() == pytest.approx((math.log(2) + math.log(3)) ** 2)
    assert margin_mse(scores, targets.nan_to_num(), torch.tensor([[True, False, False]])).item() == 0


def test_masked_scores_have_finite_gradients():
    scores = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    given = torch.tensor([[True, False, False]])
    total = info_nce(scores, torch.tensor([0]), given) + score_divergence(scores, scores.detach(), given)
    (total + margin_mse(scores, torch.zeros(1, 3), given)).sum().backward()
    assert scores.grad.tolist() == [[0.0, 0.0, 0.0]]


class Given(SentenceTransformer):
    """A model whose vectors are its input."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["vectors"]}


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_those_of_sentence_transformers(seed):
    queries, positives, negatives = (vectors(6, 8, seed=3 * seed + each) for each in range(3))
    features = [{"vectors": each} for each in (queries, positives, negatives)]
    scores = queries @ torch.cat([positives, negatives]).T
    theirs = MultipleNegativesRankingLoss(Given(), scale=50.0)(features, torch.tensor([]))
    own = torch.arange(6)
    ours = info_nce(scores / 0.02, own, torch.ones(6, 12, dtype=torch.bool)).mean()
    torch.testing.assert_close(ours, theirs)

    pair = torch.stack([scores[own, own], scores[own, 6 + own]], 1)
    labels = torch.randn(6, 2, generator=torch.Generator().manual_seed(seed))
    given = torch.ones(6, 2, dtype=torch.bool)
    theirs = MarginMSELoss(Given())(features, labels[:, 0] - labels[:, 1])
    torch.testing.assert_close(margin_mse(pair, labels, given).mean(), theirs)
    theirs = DistillKLDivLoss(Given(), temperature=0.5)(features, labels)
    # Theirs is multiplied by the square of the temperature.
    torch.testing.assert_close(score_divergence(pair / 0.5, labels / 0.5, given).mean() * 0.25, theirs)
