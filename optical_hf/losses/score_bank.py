"""English sentences in the teacher's vectors, against which the student learns to score as the teacher does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
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
        self._packed = _Packed(self.tokens, self.mask)

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
        vectors, mask = query.token_vectors.float(), query.scoring_mask[..., None]
        similarities = vectors @ own.token_vectors.detach().float().transpose(1, 2)
        best_own = similarities.masked_fill(~own.scoring_mask[:, None, :], -2.0).amax(2, keepdim=True)
        best = self._packed.best(vectors.flatten(0, 1)).view(*mask.shape[:2], -1)
        # Tokens that are not scored take part up to here: to leave them out, a GPU would wait for their number.
        return (torch.cat([best_own, best], 2) * mask).sum(1) / mask.sum(1)

    def _pooled(self, query: OpticalOutput, own: OpticalOutput) -> Tensor:
        vectors = query.pooled.float()
        own_scores = (vectors * own.pooled.detach().float()).sum(1, keepdim=True)
        return torch.cat([own_scores, vectors @ self.pooled.T], 1)


class _Packed:
    # Token vectors of sentences, short ones first, in one matrix: padded one by one to the longest, most of it would
    # be padding. In groups of like lengths, since a GPU takes as long for a small group as for a large one.
    def __init__(self, tokens: Tensor, mask: Tensor) -> None:
        sentences = sorted((row[there] for row, there in zip(tokens.float(), mask.bool(), strict=True)), key=len)
        # A sentence's first token stands for its padding, and changes no maximum.
        padded = [torch.cat([row, row[:1].expand(-len(row) % 8, -1)]) for row in sentences]
        self.matrix = torch.cat(padded)
        self.groups = Counter(len(row) for row in padded)

    def best(self, vectors: Tensor) -> Tensor:
        """Return the largest similarity of each vector in each sentence, `(vectors, sentences)`, short ones first."""
        return _Best.apply(vectors, self.matrix, self.groups)


class _Best(torch.autograd.Function):
    # The gradient of a maximum is one token vector: it is looked up, where autograd multiplies by all of them.
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, matrix: Tensor, groups: Mapping[int, int]) -> Tensor:
        similarities, best, indices, start = vectors @ matrix.T, [], [], 0
        for length, count in groups.items():
            group = similarities[:, start : start + count * length].unflatten(1, (count, length))
            if ctx.needs_input_grad[0]:
                values, places = group.max(2)
                indices.append(places + torch.arange(start, start + count * length, length, device=matrix.device))
            else:
                values = group.amax(2)
            best.append(values)
            start += count * length
        if indices:
            ctx.save_for_backward(torch.cat(indices, 1), matrix)
        return torch.cat(best, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        indices, matrix = ctx.saved_tensors
        return embedding_bag(indices, matrix, per_sample_weights=gradients[0], mode="sum"), None, None


def first_sentences(pairs: Iterable[Mapping[str, str]], count: int) -> list[str]:
    """Return the first `count` English sentences of bitext that differ from one another."""
    distinct = dict.fromkeys(pair["english"] for pair in islice(pairs, 4 * count))
    return list(distinct)[:count]
