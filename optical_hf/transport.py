"""Token transport between a sentence and its translation: cost, marginals, plan, and the loss they give.

Every function takes a batch of padded problems. A problem's teacher tokens are the rows of its cost and plan, its
student tokens the columns. Padding may lie anywhere; it never gets mass and never gets a gradient.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .bounds import check_count
from .transport_solvers import (
    Problems,
    Step,
    Stop,
    balanced,
    balanced_step,
    exact,
    ipot,
    partial_step,
    sinkhorn,
    sinkhorn_log,
    unbalanced_step,
)

SOLVERS = ("sinkhorn", "sinkhorn_log", "ipot", "exact", "unbalanced", "partial")


def cosine_cost(
    teacher: Tensor,
    student: Tensor,
    teacher_mask: Tensor | None = None,
    student_mask: Tensor | None = None,
    centre: bool | tuple[Tensor, Tensor] = False,
) -> Tensor:
    """
    Cost of moving each teacher token onto each student token: one minus the cosine of their vectors.

    Contrastive encoders are anisotropic: their token vectors lie in a narrow cone, all cosines are alike, and an
    entropic plan is close to uniform. `centre` subtracts each side's mean first, a constant without gradient.

    Args:
        teacher, student (`torch.Tensor` of shape `(batch, teacher_tokens or student_tokens, dim)`):
            Token vectors of any length. Half precision is computed in float32, under autocast too.
        teacher_mask, student_mask (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*):
            True on the tokens to transport; all of them by default.
        centre (`bool` or a pair of `torch.Tensor` of shape `(dim,)`, *optional*, defaults to `False`):
            True subtracts the mean over this batch's valid tokens; a pair gives the teacher's and the student's mean.

    Returns:
        `torch.Tensor` of shape `(batch, teacher_tokens, student_tokens)`: between 0 and 2; 1 where a vector is zero
        (or, to rounding, its mean); 0, without gradient, on padding.
    """
    if teacher.ndim != 3 or student.ndim != 3 or (teacher.shape[0], teacher.shape[2]) != student.shape[::2]:
        shapes = f"{tuple(teacher.shape)} and {tuple(student.shape)}"
        raise ValueError(f"`teacher` and `student` must be (batch, tokens, dim) of one batch and dim, got {shapes}.")
    means = centre if isinstance(centre, tuple) else (centre, centre)
    # Autocast would bring the product, whose small differences matter here, back to half precision.
    with torch.autocast(teacher.device.type, enabled=False):
        teacher, rows = _unit_vectors("teacher", teacher, teacher_mask, means[0])
        student, columns = _unit_vectors("student", student, student_mask, means[1])
        cost = 1.0 - teacher @ student.to(teacher).transpose(1, 2)
    return cost.masked_fill(~(rows[:, :, None] & columns[:, None, :]), 0.0)


def marginals(mask: Tensor, weights: Tensor | None = None, checked: bool = True) -> Tensor:
    """
    The mass each token brings: uniform over a sentence's valid tokens, or in proportion to `weights`.

    Args:
        mask (`torch.BoolTensor` of shape `(batch, tokens)`):
            True on the tokens to transport.
        weights (`torch.Tensor` of shape `(batch, tokens)`, *optional*):
            Non-negative, such as inverse document frequencies. Ignored on padding.
        checked (`bool`, *optional*, defaults to `True`):
            Whether masks and weights are checked, for which a GPU has to be waited for.

    Returns:
        `torch.Tensor` of shape `(batch, tokens)`: each row sums to 1, 0 on padding; float64 if `weights` is.

    Raises:
        ValueError: A row has no valid token, a negative or non-finite weight, or a total weight of zero.
    """
    mask = mask.bool()
    if weights is not None and weights.shape != mask.shape:
        raise ValueError(f"`weights` must be {tuple(mask.shape)} like `mask`, got {tuple(weights.shape)}.")
    _raise_for_row(checked, ~mask.any(-1), "`mask` has no valid token")
    masses = _working(mask if weights is None else weights).masked_fill(~mask, 0.0)
    total = masses.sum(-1, keepdim=True)
    _raise_for_row(
        checked, (masses < 0).any(-1) | ~total[:, 0].isfinite(), "`weights` has a negative or non-finite value"
    )
    _raise_for_row(checked, total[:, 0] == 0, "`weights` sums to zero over the valid tokens")
    return masses / total


@torch.no_grad()
def transport_plan(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    solver: str = "sinkhorn",
    epsilon: float = 0.1,
    relative_epsilon: bool = True,
    iterations: int = 200,
    tolerance: float = 1e-3,
    reg_m: float = 10.0,
    partial_mass: float = 0.8,
    checked: bool = True,
) -> Tensor:
    """
    Transport plans as constants: by the envelope theorem the loss has the gradient of <P, C> with P held fixed.

    The entropic solvers minimise <P, C> + epsilon KL(P | a b^T). All but the last two match both marginals.

    - `"sinkhorn"`: matrix products on stabilised kernels (Schmitzer 2019, arXiv 1610.06519, section 3); a problem
      which over- or underflows all the same is solved in the log domain. A GPU makes all iterations, in float64.
    - `"sinkhorn_log"`: the same plan, all in the log domain (Cuturi 2013, arXiv 1306.0895).
    - `"ipot"`: as many proximal steps of size `epsilon` (1 suits it) as `iterations`; their limit is an exact plan
      (Xie et al. 2020, arXiv 1802.04307, algorithm 1).
    - `"exact"`: no entropy; POT's network simplex, problem by problem on the CPU in float64.
    - `"unbalanced"`: missing a marginal costs `reg_m` times the KL divergence (Chizat et al. 2018, arXiv 1607.05816).
    - `"partial"`: exceeds no marginal and moves only the share `partial_mass`, where that is cheapest (Benamou et al.
      2015, arXiv 1412.5154, section 5).

    Args:
        cost (`torch.Tensor` of shape `(batch, teacher_tokens, student_tokens)`):
            Half precision is computed in float32. Not read where `a` or `b` is 0.
        a, b (`torch.Tensor` of shapes `(batch, teacher_tokens)` and `(batch, student_tokens)`):
            Masses, 0 on padding: see `marginals`. Totals may differ for `"unbalanced"` and `"partial"` only.
        solver (`str`, *optional*, defaults to `"sinkhorn"`):
            One of the above.
        epsilon (`float`, *optional*, defaults to 0.1):
            Smaller is sharper and takes more iterations.
        relative_epsilon (`bool`, *optional*, defaults to `True`):
            Whether `epsilon` and `reg_m` are in units of each problem's standard deviation of the cost under a b^T
            (its size if all costs are equal), so that the cost's scale does not matter; otherwise of the cost itself.
        iterations (`int`, *optional*, defaults to 200):
            The most iterations made.
        tolerance (`float`, *optional*, defaults to 1e-3):
            A problem is solved when its rows miss less than this share of the mass (`"unbalanced"`, `"partial"`: when
            an iteration moves less). All but `"unbalanced"` are then rounded to their marginals (Altschuler et al.
            2017, arXiv 1705.09634, algorithm 2).
        reg_m (`float`, *optional*, defaults to 10.0):
            For `"unbalanced"`. A token whose cheapest partner costs a few times this keeps little mass.
        partial_mass (`float`, *optional*, defaults to 0.8):
            For `"partial"`: the share, in (0, 1], of the smaller total mass.
        checked (`bool`, *optional*, defaults to `True`):
            Whether the numbers in the tensors are checked, for which a GPU has to be waited for.

    Returns:
        `torch.Tensor` of shape `(batch, teacher_tokens, student_tokens)`, 0 on padding.

    Raises:
        ValueError: An option is out of range, a cost is not finite, or shapes or masses do not agree.
    """
    if solver not in SOLVERS:
        raise ValueError(f"Unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}.")
    check_count("`iterations`", iterations)
    for name, value in (("epsilon", epsilon), ("reg_m", reg_m)):
        if not 0 < value < math.inf:
            raise ValueError(f"`{name}` must be positive and finite, got {value}.")
    if not 0 < partial_mass <= 1 or not tolerance >= 0:
        raise ValueError(f"`partial_mass` must be in (0, 1], `tolerance` >= 0, got {partial_mass} and {tolerance}.")
    if cost.ndim != 3 or a.shape != cost.shape[:2] or b.shape != cost.shape[::2]:
        shapes = f"{tuple(cost.shape)}, {tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"`cost`, `a` and `b` must be (batch, n, m), (batch, n) and (batch, m), got {shapes}.")
    cost = _working(cost)
    a, b = a.to(cost), b.to(cost)
    for name, masses in (("a", a), ("b", b)):
        _raise_for_row(
            checked, ~((masses >= 0) & masses.isfinite()).all(-1), f"`{name}` has a negative or non-finite mass"
        )
        _raise_for_row(checked, masses.sum(-1) <= 0, f"`{name}` has no mass")
    outside = (a == 0)[:, :, None] | (b == 0)[:, None, :]
    cost = cost.masked_fill(outside, 0.0)
    _raise_for_row(checked, ~cost.isfinite().flatten(1).all(-1), "`cost` has a value which is not finite")
    mass = a.sum(-1)
    if solver == "partial":
        mass = partial_mass * torch.minimum(mass, b.sum(-1))
    elif solver != "unbalanced":
        _raise_for_row(checked, (mass - b.sum(-1)).abs() > 1e-2 * mass, "`a` and `b` have different total masses")
        b = b * (mass / b.sum(-1))[:, None]  # the caller's may differ by the rounding of half precision
    if solver == "exact":
        return exact(Problems(cost, a, b, mass))

    unit = epsilon * (_spread(cost, a, b) if relative_epsilon else torch.ones_like(mass))
    problems, stop = Problems(cost / unit[:, None, None], a, b, mass), Stop(iterations, tolerance)
    step: Step = balanced_step
    if solver == "unbalanced":
        step = functools.partial(unbalanced_step, ratio=reg_m / epsilon)
    elif solver == "partial":
        step = partial_step
    with torch.autocast(cost.device.type, enabled=False):
        if solver == "ipot":
            plan = ipot(problems, iterations)
        elif solver == "sinkhorn_log":
            plan = sinkhorn_log(problems, step, stop)
        elif solver == "sinkhorn":
            plan = balanced(problems, stop)
        else:
            plan = sinkhorn(problems, step, stop)
    plan = plan.masked_fill(outside, 0.0)
    return plan if solver == "unbalanced" else _round(plan, a, b, mass)


def plan_entropy(plan: Tensor, student_mask: Tensor | None = None) -> Tensor:
    """
    How blurred a plan is: the entropy of where a teacher token's mass goes, as a share of its maximum.

    Args:
        plan (`torch.Tensor` of shape `(batch, teacher_tokens, student_tokens)`):
            From `transport_plan`.
        student_mask (`torch.BoolTensor` of shape `(batch, student_tokens)`, *optional*):
            True on the valid tokens; by default those which receive mass.

    Returns:
        `torch.Tensor` of shape `(batch,)`: rows averaged by their mass; 1 if each spreads evenly over the student's
        valid tokens, 0 if each goes to one token or there is only one.
    """
    plan = _working(plan.detach())
    if student_mask is not None and student_mask.shape != plan.shape[::2]:
        raise ValueError(f"`student_mask` must be {tuple(plan.shape[::2])}, got {tuple(student_mask.shape)}.")
    rows = plan.sum(-1)
    tokens = (plan.sum(1) > 0 if student_mask is None else student_mask.bool()).sum(-1)
    entropy = -torch.xlogy(plan, plan / _positive(rows)[:, :, None]).sum((1, 2))
    largest = _positive(rows.sum(-1)) * tokens.clamp_min(2).to(plan).log()
    return (entropy / largest).clamp(0.0, 1.0).masked_fill(tokens < 2, 0.0)


def transport_loss(cost: Tensor, plan: Tensor) -> Tensor:
    """
    <P, C> of each problem, of shape `(batch,)`: OPTICAL's loss (arXiv 2301.12566). Its gradient reaches the cost only.

    Example:

    ```python
    >>> cost = cosine_cost(teacher, student, teacher_mask, student_mask, centre=True)
    >>> plan = transport_plan(cost, marginals(teacher_mask), marginals(student_mask))
    >>> transport_loss(cost, plan).mean().backward()
    ```
    """
    if cost.shape != plan.shape:
        raise ValueError(f"`cost` and `plan` must have one shape, got {tuple(cost.shape)} and {tuple(plan.shape)}.")
    return (_working(cost) * plan.detach()).sum((-2, -1))


def _unit_vectors(side: str, x: Tensor, mask: Tensor | None, mean: Tensor | bool) -> tuple[Tensor, Tensor]:
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
    if mask.shape != x.shape[:2]:
        raise ValueError(f"`{side}_mask` must be {tuple(x.shape[:2])} like `{side}`, got {tuple(mask.shape)}.")
    x = _working(x).masked_fill(~mask[..., None], 0.0)
    if mean is True:
        mean = x.detach().sum((0, 1)) / mask.sum().clamp_min(1)
    mean = mean.detach().to(x) if isinstance(mean, Tensor) else x.new_zeros(x.shape[2])
    if mean.shape != x.shape[2:]:
        raise ValueError(f"`centre`: the {side}'s mean must be ({x.shape[2]},), got {tuple(mean.shape)}.")
    x, rounding = x - mean, 16 * torch.finfo(x.dtype).eps * mean.norm()
    squared = x.square().sum(-1, keepdim=True)
    # Not divided by its own (tiny) length, a zero vector has cosine 0 and a gradient of ordinary size.
    zero = squared <= rounding.square().clamp_min(torch.finfo(x.dtype).tiny)
    return x * squared.masked_fill(zero, 1.0).rsqrt(), mask


def _round(plan: Tensor, a: Tensor, b: Tensor, mass: Tensor) -> Tensor:
    # What exceeds its mass is scaled down, rows first; what is then missing is spread over the room left.
    plan = plan * (a / _positive(plan.sum(2))).clamp_max(1.0)[:, :, None]
    plan = plan * (b / _positive(plan.sum(1))).clamp_max(1.0)[:, None, :]
    missing = (mass - plan.sum((1, 2))).clamp_min(0.0)
    room_a, room_b = (a - plan.sum(2)).clamp_min(0.0), (b - plan.sum(1)).clamp_min(0.0)
    share_a = room_a / _positive(room_a.sum(-1, keepdim=True))
    share_b = room_b / _positive(room_b.sum(-1, keepdim=True))
    return plan + missing[:, None, None] * share_a[:, :, None] * share_b[:, None, :]


def _spread(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    # The standard deviation under a b^T. Where it is rounding, all costs are equal: then their size, or 1 for zeros.
    weights = (a / a.sum(-1, keepdim=True))[:, :, None] * (b / b.sum(-1, keepdim=True))[:, None, :]
    mean = (weights * cost).sum((1, 2), keepdim=True)
    spread = (weights * (cost - mean).square()).sum((1, 2)).sqrt()
    size = cost.abs().amax((1, 2))
    spread = torch.where(spread > 16 * torch.finfo(cost.dtype).eps * size, spread, size)
    return torch.where(spread > 0, spread, 1.0)


def _working(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _positive(tensor: Tensor) -> Tensor:
    return tensor.clamp_min(torch.finfo(tensor.dtype).tiny)


def _raise_for_row(checked: bool, bad: Tensor, what: str) -> None:
    if checked and bad.any():
        raise ValueError(f"{what} in row {bad.nonzero()[0, 0].item()} of the batch.")
