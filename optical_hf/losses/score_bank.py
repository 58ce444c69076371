"""English sentences in the teacher's vectors, against which the student learns to score as the teacher does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..bounds import check_fields, check_number
from ..models.modeling_optical import OpticalModel, OpticalOutput


@dataclass
class ScoreBank:
    """Sentences that stand for passages while a student is trained.

    A student may be near the teacher in every vector and still rank differently, since what decides between two
    passages is a small part of a vector that all texts share. So the ranking itself is distilled: the scores of a pair
    are those of the bank's sentences and of the pair's own English sentence, by MaxSim (as the mean over a query's
    tokens, of which the two sides have different numbers) and by pooled vectors. Nothing else of the batch takes part:
    the loss of a pair does not depend on the pairs beside it, and gradient accumulation stays exact.

    Args:
        pooled (`torch.Tensor` of shape `(sentences, dim)`):
            Pooled vectors.
        tokens (`torch.Tensor` of shape `(first_sentences, tokens, dim)`):
            Token vectors of the first sentences only, since MaxSim costs more.
        mask (`torch.BoolTensor` of shape `(first_sentences, tokens)`):
            True on the tokens that are there.
        pooled_temperature (`float`, *optional*, defaults to 0.02):
            What pooled cosines are divided by before the softmax.
        token_temperature (`float`, *optional*, defaults to 0.01):
            What MaxSim scores are divided by.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
    pooled_temperature: float = 0.02
    token_temperature: float = 0.01

    def __post_init__(self) -> None:
        check_fields(self, check_number, "pooled_temperature", "token_temperature", above=True)

    @classmethod
    def encode(
        cls, teacher: OpticalModel, sentences: Sequence[str], role: str, first: int = 256, **temperatures: float
    ) -> ScoreBank:
        """Encode sentences by the teacher, the `first` of them into token vectors as well.

        Raises:
            FloatingPointError: if the teacher's vectors are not finite.
        """
        tokens, pooled = teacher.encode_both(sentences[:first], role, show_progress=False)
        if len(sentences) > first:
            pooled = torch.cat([pooled, teacher.encode_pooled(sentences[first:], role)])
        if not pooled.isfinite().all():
            raise FloatingPointError("The teacher's vectors are not finite: its weights are damaged, or overflow.")
        lengths = torch.tensor([len(one) for one in tokens])
        padded = pad_sequence(tokens, batch_first=True)
        mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        device = teacher.device
        return cls(pooled.to(device), padded.to(device), mask.to(device), **temperatures)

    @property
    def mean(self) -> Tensor:
        """`torch.Tensor` of shape `(dim,)`: the mean token vector."""
        return self.tokens[self.mask].mean(0)

    def divergence(self, teacher: OpticalOutput, student: OpticalOutput) -> tuple[Tensor, Tensor]:
        """KL divergence of the student's scores from the teacher's, softened: by MaxSim and by pooled vectors.

        Args:
            teacher, student ([`OpticalOutput`]): of a batch of pairs.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: each `(batch,)`.
        """
        divergences = []
        with torch.autocast(self.pooled.device.type, enabled=False):  # differences of scores are small
            for score, temperature in (
                (self._maxsim, self.token_temperature),
                (self._pooled, self.pooled_temperature),
            ):
                with torch.no_grad():
                    target = (score(teacher, teacher) / temperature).log_softmax(1)
                scores = (score(student, teacher) / temperature).log_softmax(1)
                divergences.append((target.exp() * (target - scores)).sum(1))
        return divergences[0], divergences[1]

    def _maxsim(self, query: OpticalOutput, own: OpticalOutput) -> Tensor:
        mask = query.scoring_mask
        similarities = query.token_vectors[mask].float() @ self.tokens.flatten(0, 1).T
        best = similarities.view(-1, *self.mask.shape).masked_fill(~self.mask, -2.0).amax(2)
        similarities = query.token_vectors.float() @ own.token_vectors.detach().float().transpose(1, 2)
        best_own = similarities.masked_fill(~own.scoring_mask[:, None, :], -2.0).amax(2)[mask]
        totals = best.new_zeros(len(mask), 1 + best.shape[1])
        totals = totals.index_add(0, mask.nonzero()[:, 0], torch.cat([best_own[:, None], best], 1))
        return totals / mask.sum(1, keepdim=True)

    def _pooled(self, query: OpticalOutput, own: OpticalOutput) -> Tensor:
        vectors = query.pooled.float()
        own_scores = (vectors * own.pooled.detach().float()).sum(1, keepdim=True)
        return torch.cat([own_scores, vectors @ self.pooled.T], 1)


def first_sentences(pairs: Iterable[Mapping[str, str]], count: int) -> list[str]:
    """Return the first `count` English sentences of bitext that differ from one another."""
    distinct = dict.fromkeys(pair["english"] for pair in islice(pairs, 4 * count))
    return list(distinct)[:count]
