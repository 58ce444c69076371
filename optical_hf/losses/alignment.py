"""What the student is taught with: losses between a teacher's and a student's vectors of the same sentences.

A loss is any callable that takes two [`OpticalOutput`], of the English sentences through the teacher and of their
translations through the student, and returns the loss and a dict of numbers to log. A loss of shape `(batch,)`, one
value a pair, is averaged by the trainer and logged by language; a scalar is used as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..bounds import check_fields, check_number
from ..models.modeling_optical import OpticalOutput
from ..transport import cosine_cost, marginals, plan_entropy, transport_loss, transport_plan
from .score_bank import ScoreBank

Loss = Callable[[OpticalOutput, OpticalOutput], tuple[Tensor, Mapping[str, Tensor | float]]]


def pooled_distance(teacher: OpticalOutput, student: OpticalOutput) -> Tensor:
    """Squared distance of the pooled unit vectors, of shape `(batch,)`."""
    return (teacher.pooled.detach().float() - student.pooled.float()).square().sum(-1)


def mse_loss(teacher: OpticalOutput, student: OpticalOutput) -> tuple[Tensor, dict[str, Tensor]]:
    """Distil the pooled vector alone (Reimers & Gurevych 2020, arXiv 2004.09813, section 2)."""
    return pooled_distance(teacher, student), {}


@dataclass(kw_only=True)
class TokenLoss:
    """What transport and greedy alignment share: a cost between tokens, and two terms of whole sentences.

    Args:
        token_weight (`float`, *optional*, defaults to 1.0):
            Weight of the cost of the alignment. 0 leaves the terms of whole sentences alone.
        pooled_weight (`float`, *optional*, defaults to 1.0):
            Weight of [`pooled_distance`], which is added.
        centre (`torch.Tensor` of shape `(dim,)`, *optional*):
            Subtracted from the token vectors of both sides before their cosine, usually the teacher's mean:
            contrastive encoders are anisotropic, and without it all costs are alike.
        bank ([`ScoreBank`], *optional*):
            If given, its two divergences are added.
        score_weight (`float`, *optional*, defaults to 1.0):
            Weight of these divergences.
    """

    token_weight: float = 1.0
    pooled_weight: float = 1.0
    centre: Tensor | None = None
    bank: ScoreBank | None = None
    score_weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self, check_number, "token_weight", "pooled_weight", "score_weight")

    def cost(self, teacher: OpticalOutput, student: OpticalOutput) -> Tensor:
        """Return the cosine cost, `(batch, teacher_tokens, student_tokens)`, 0 on padding."""
        return cosine_cost(
            teacher.token_vectors.detach(),
            student.token_vectors,
            teacher.scoring_mask,
            student.scoring_mask,
            centre=False if self.centre is None else (self.centre, self.centre),
        )

    def total(self, moved: Tensor, teacher: OpticalOutput, student: OpticalOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cost of the alignment, `(batch,)`, with the terms of whole sentences, and numbers to log."""
        losses, numbers = self.token_weight * moved, {"cost": moved.detach().mean()}
        if self.pooled_weight:
            distance = pooled_distance(teacher, student)
            losses, numbers["pooled_distance"] = losses + self.pooled_weight * distance, distance.detach().mean()
        if self.bank is not None and self.score_weight:
            for name, one in zip(("maxsim", "pooled"), self.bank.divergence(teacher, student), strict=True):
                losses, numbers[f"{name}_divergence"] = losses + self.score_weight * one, one.detach().mean()
        return losses, numbers


@dataclass(kw_only=True)
class OTLoss(TokenLoss):
    """OPTICAL's loss (arXiv 2301.12566): <P, C> of the plan P that moves the teacher's tokens onto the student's.

    Args:
        solver, epsilon, iterations, reg_m, partial_mass:
            See [`transport.transport_plan`]; `epsilon` is in standard deviations of a pair's costs.

    Example:

    ```python
    >>> loss, numbers = OTLoss(epsilon=0.05)(teacher(**english), student(**translation))
    >>> loss.mean().backward()
    ```
    """

    solver: str = "sinkhorn"
    epsilon: float = 0.1
    iterations: int = 200
    reg_m: float = 10.0
    partial_mass: float = 0.8

    def __call__(self, teacher: OpticalOutput, student: OpticalOutput) -> tuple[Tensor, dict[str, Tensor]]:
        cost = self.cost(teacher, student)
        waits = cost.device.type == "cpu"  # elsewhere, the trainer checks all numbers at once, later
        plan = transport_plan(
            cost.detach(),
            marginals(teacher.scoring_mask, checked=waits),
            marginals(student.scoring_mask, checked=waits),
            solver=self.solver,
            epsilon=self.epsilon,
            iterations=self.iterations,
            reg_m=self.reg_m,
            partial_mass=self.partial_mass,
            checked=waits,
        )
        moved = transport_loss(cost, plan)
        losses, numbers = self.total(moved, teacher, student)
        return losses, numbers | {"plan_entropy": plan_entropy(plan, student.scoring_mask).mean()}


@dataclass(kw_only=True)
class GreedyLoss(TokenLoss):
    """DR.DECR's alignment (arXiv 2112.08185): each student token goes to the teacher token that is nearest to it."""

    def __call__(self, teacher: OpticalOutput, student: OpticalOutput) -> tuple[Tensor, dict[str, Tensor]]:
        cost = self.cost(teacher, student)
        nearest = cost.masked_fill(~teacher.scoring_mask[:, :, None], float("inf")).amin(1)
        mask = student.scoring_mask
        moved = nearest.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
        return self.total(moved, teacher, student)
