"""The solvers of `transport.transport_plan`, which has checked their problems: plans from costs and masses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_GROWTH = 20.0  # of an exponent, at which a kernel is made anew; float32 holds exponents to -87
_CHECK_EVERY = 10  # iterations between looks at convergence (each a synchronisation on a GPU), and between kernels


class Problems:
    """A batch of padded problems: the cost in units of epsilon, the masses of its sides, and the mass to move.

    Padding is what has a mass of zero. Its cost is zero.
    """

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, mass: Tensor) -> None:
        self.cost, self.a, self.b, self.mass = cost, a, b, mass
        self.log_a, self.log_b = a.log(), b.log()
        self.no_row, self.no_column = a == 0, b == 0
        self.outside = self.no_row[:, :, None] | self.no_column[:, None, :]

    def double(self) -> Problems:
        """The same in float64."""
        return Problems(self.cost.double(), self.a.double(), self.b.double(), self.mass.double())

    def __getitem__(self, rows: Tensor) -> Problems:
        return Problems(self.cost[rows], self.a[rows], self.b[rows], self.mass[rows])


class Stop(NamedTuple):
    """When Sinkhorn's iterations end."""

    iterations: int  # the most made
    tolerance: float  # a problem is solved when an iteration moves less than this share of its mass


class Potentials(NamedTuple):
    """A plan in logarithms: `a_i b_j exp(f_i + g_j + level - cost_ij)`."""

    f: Tensor  # (batch, n)
    g: Tensor  # (batch, m)
    level: Tensor  # (batch, 1); zero unless plans are partial
    drift: Tensor  # (batch, 1); see `Kernel`

    def plan(self, problems: Problems) -> Tensor:
        rows, columns = problems.log_a + self.f + self.level, problems.log_b + self.g
        return (rows[:, :, None] + columns[:, None, :] - problems.cost).exp()

    def where(self, rows: Tensor, others: Potentials) -> Potentials:
        return Potentials(*(torch.where(rows[:, None], x, y) for x, y in zip(self, others, strict=True)))


# Half steps, in two ways that give the same: one side's potentials, 0 on padding, with which that side gets its masses
# while the other side's potentials are held and the level is zero.


class LogDomain:
    """Half steps in the log domain: they hold for any cost, but take an exponential of each of its entries."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.drift = torch.zeros_like(problems.mass)[:, None]

    def match_rows(self, g: Tensor) -> Tensor:
        f = -((self.problems.log_b + g)[:, None, :] - self.problems.cost).logsumexp(2)
        return f.masked_fill(self.problems.no_row, 0.0)

    def match_columns(self, f: Tensor) -> Tensor:
        g = -((self.problems.log_a + f)[:, :, None] - self.problems.cost).logsumexp(1)
        return g.masked_fill(self.problems.no_column, 0.0)


class Kernel:
    """Half steps as products with the kernel `exp(f0_i + g0_j - cost_ij)`, which holds the potentials so far.

    So, after a first step in the log domain, its columns sum to about one, whatever the cost's range. Entries that
    underflow all the same are missed once the potentials have moved from f0 and g0 by as much as they lacked: `drift`
    is the most by which an exponent of this kernel, or of one before it, may have grown.
    """

    def __init__(self, problems: Problems, potentials: Potentials) -> None:
        self.problems = problems
        self.f0, self.g0, _, self.drift = potentials
        kernel = (self.f0[:, :, None] + self.g0[:, None, :] - problems.cost).exp()
        self.kernel = kernel.masked_fill(problems.outside, 0.0)

    def match_rows(self, g: Tensor) -> Tensor:
        grown = g - self.g0
        rows = (self.kernel @ (self.problems.b * grown.exp())[:, :, None])[:, :, 0].log()
        self._follow(grown, rows.masked_fill(self.problems.no_row, 0.0))
        return (self.f0 - rows).masked_fill(self.problems.no_row, 0.0)

    def match_columns(self, f: Tensor) -> Tensor:
        grown = f - self.f0
        columns = ((self.problems.a * grown.exp())[:, None, :] @ self.kernel)[:, 0].log()
        self._follow(grown, columns.masked_fill(self.problems.no_column, 0.0))
        return (self.g0 - columns).masked_fill(self.problems.no_column, 0.0)

    def _follow(self, grown: Tensor, sums: Tensor) -> None:
        # The held side's potentials have grown by `grown`, the other side's are about to by `-sums`.
        self.drift = torch.maximum(self.drift, grown.amax(1, keepdim=True) - sums.amin(1, keepdim=True))


Domain = LogDomain | Kernel
Step = Callable[[Domain, Potentials], Potentials]

# Iterations, one for each kind of marginal


def balanced_step(domain: Domain, old: Potentials) -> Potentials:
    """Sinkhorn's iteration: the rows get their masses, then the columns."""
    f = domain.match_rows(old.g)
    g = domain.match_columns(f)
    return Potentials(f, g, old.level, domain.drift)


def unbalanced_step(domain: Domain, old: Potentials, ratio: float) -> Potentials:
    """An iteration where missing a marginal costs `ratio` times the KL divergence, in units of epsilon."""
    damping = ratio / (ratio + 1.0)  # the price of a missed marginal damps the step
    f = damping * domain.match_rows(old.g)
    g = damping * domain.match_columns(f)
    # A constant moved from g to f leaves the plan as it is; the best one makes the prices of both sides equal. Without
    # it the total mass converges slowly.
    price_a = (domain.problems.log_a - f / ratio).logsumexp(1, keepdim=True)
    price_b = (domain.problems.log_b - g / ratio).logsumexp(1, keepdim=True)
    shift = (price_a - price_b) * ratio / 2
    return Potentials(f + shift, g - shift, old.level, domain.drift)


def partial_step(domain: Domain, old: Potentials) -> Potentials:
    """An iteration that caps the potentials (one above zero exceeds its marginal), then lets `level` set the mass."""
    problems = domain.problems
    f = (domain.match_rows(old.g) - old.level).clamp_max(0.0).masked_fill(problems.no_row, 0.0)
    matched = domain.match_columns(f)
    g = (matched - old.level).clamp_max(0.0).masked_fill(problems.no_column, 0.0)
    # With a level of zero, column j would get `b_j exp(g_j - matched_j)`.
    level = problems.mass.log()[:, None] - (problems.log_b + g - matched).logsumexp(1, keepdim=True)
    return Potentials(f, g, level, domain.drift)


# Solvers


def balanced(problems: Problems, stop: Stop) -> Tensor:
    """Plans that match both marginals, by iterations that scale rows and columns of stabilised kernels.

    On the CPU a solved problem leaves the batch, and one which over- or underflows is solved in the log domain. An
    accelerator would have to be waited for to know either. There all iterations are made, in float64, whose exponents
    span eight times as much; if even they do not suffice, the plan is `a b^T`.

    Own code, though `ot.solve_batch` is as quick: that takes one epsilon a batch, its kernel underflows in float32
    once costs span 90 epsilon, and it allocates on the default device.
    """
    waits = problems.cost.device.type == "cpu"
    every = problems if waits or problems.cost.device.type == "mps" else problems.double()
    level = torch.zeros_like(every.mass)[:, None]
    start = Potentials(torch.zeros_like(every.a), torch.zeros_like(every.b), level, level)
    f, g, _, _ = balanced_step(LogDomain(every), start)
    plan, drift, tiny = torch.zeros_like(every.cost), torch.zeros_like(every.mass), torch.finfo(f.dtype).tiny
    left, active, stale = torch.arange(len(f), device=f.device), every, True  # which problems are not solved
    for done in range(1, stop.iterations + 1, _CHECK_EVERY):
        if stale:
            kernel = Potentials(f, g, level, level).plan(active)  # it holds the potentials so far
            transposed = kernel.transpose(1, 2).contiguous()  # a row vector times a matrix is the quicker product
            rows, columns = torch.ones_like(f), torch.ones_like(g)
        before = rows
        for _ in range(min(_CHECK_EVERY, stop.iterations - done)):
            before, rows = rows, active.a / (columns[:, None, :] @ transposed)[:, 0].clamp_min(tiny)
            columns = active.b / (rows[:, None, :] @ kernel)[:, 0].clamp_min(tiny)
        more_f = rows.log().masked_fill(active.no_row, 0.0)
        more_g = columns.log().masked_fill(active.no_column, 0.0)
        growth = more_f.amax(1) + more_g.amax(1)  # by as much may an entry have grown that had underflowed
        drift[left] = torch.maximum(drift[left], growth)
        if waits:
            missed = (active.a * (more_f - before.log().masked_fill(active.no_row, 0.0)).abs()).sum(1) / active.mass
            rest = missed > stop.tolerance  # one that failed (NaN) is not waited for
            if not rest.all():
                plan[left[~rest]] = (rows[:, :, None] * kernel * columns[:, None, :])[~rest]
                left, active, level, f, g = left[rest], active[rest], level[rest], f[rest], g[rest]
                rows, columns, kernel, transposed = rows[rest], columns[rest], kernel[rest], transposed[rest]
                more_f, more_g, growth = more_f[rest], more_g[rest], growth[rest]
            if not len(left):
                break
        stale = not waits or float(growth.max()) > _GROWTH
        if stale:
            f, g = f + more_f, g + more_g
    plan[left] = rows[:, :, None] * kernel * columns[:, None, :]
    # A plan that misses entries is finite, but wrong. Half the exponent's range leaves the rest for rounding and small
    # masses.
    failed = ~plan.isfinite().flatten(1).all(-1) | (drift > -0.5 * math.log(tiny))
    if not waits:
        spread = every.a[:, :, None] * every.b[:, None, :] / every.mass[:, None, None]
        return torch.where(failed[:, None, None], spread, plan).to(problems.cost)
    if failed.any():
        plan[failed] = sinkhorn_log(problems[failed], balanced_step, stop)
    return plan


def sinkhorn(problems: Problems, step: Step, stop: Stop) -> Tensor:
    """Plans by iterations on kernels. A problem which over- or underflows all the same is solved in the log domain."""
    potentials = _iterate(problems, step, stop, kernels=True)
    plan = potentials.plan(problems)
    # A plan that misses entries is finite, but wrong. Half the exponent's range leaves the rest for rounding and small
    # masses.
    limit = -0.5 * math.log(torch.finfo(plan.dtype).tiny)
    failed = ~plan.isfinite().flatten(1).all(-1) | (potentials.drift[:, 0] > limit)
    if failed.any():
        plan[failed] = sinkhorn_log(problems[failed], step, stop)
    return plan


def sinkhorn_log(problems: Problems, step: Step, stop: Stop) -> Tensor:
    """Plans by iterations in the log domain."""
    return _iterate(problems, step, stop, kernels=False).plan(problems)


def _iterate(problems: Problems, step: Step, stop: Stop, kernels: bool) -> Potentials:
    domain: Domain = LogDomain(problems)
    f, g, level = torch.zeros_like(problems.a), torch.zeros_like(problems.b), torch.zeros_like(problems.mass)[:, None]
    new = solved = Potentials(f, g, level, domain.drift)
    pending = torch.ones_like(problems.mass, dtype=torch.bool)
    for iteration in range(stop.iterations):
        if kernels and iteration % _CHECK_EVERY == 1:
            domain = Kernel(problems, new)
        old, new = new, step(domain, new)
        if iteration % _CHECK_EVERY == _CHECK_EVERY - 1:
            # A problem's plan is the one it converged to, however long the others take: so it does not depend on them.
            solved = new.where(pending, solved)
            pending &= _moved(problems.a, old, new) > stop.tolerance  # one that failed (NaN) is not waited for
            if not pending.any():
                break
    return new.where(pending, solved)


def _moved(a: Tensor, old: Potentials, new: Potentials) -> Tensor:
    # Changing f by d scales a row by exp(d): to first order, this is the share which the rows missed before.
    return (a * (new.f - old.f).abs()).sum(-1) / a.sum(-1) + (new.level - old.level).abs()[:, 0]


def ipot(problems: Problems, iterations: int) -> Tensor:
    """Proximal steps whose limit is an exact plan.

    The plan of iteration t is `a_i b_j exp(f_i + g_j - t cost_ij)`: a Sinkhorn step for a t-fold sharper epsilon which
    starts from g and its last increment. `ot.solve_batch(method="proximal")` is NaN on masses of zero and, in POT
    0.9.7, whose proximal term has the wrong sign, misses the exact cost without them too.
    """
    log_a, log_b, outside = problems.log_a, problems.log_b, problems.outside
    cost = problems.cost - problems.cost.masked_fill(outside, math.inf).amin((1, 2), keepdim=True)
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    old_g = g
    for t in range(1, iterations + 1):
        f = -((log_b + 2 * g - old_g)[:, None, :] - t * cost).logsumexp(2)
        g, old_g = -((log_a + f)[:, :, None] - t * cost).logsumexp(1), g
    return ((log_a + f)[:, :, None] + (log_b + g)[:, None, :] - iterations * cost).exp()


def exact(problems: Problems) -> Tensor:
    """Plans without entropy, by POT's network simplex on the CPU in float64."""
    import ot  # here, for it takes long and no other solver needs it

    plan = torch.zeros_like(problems.cost)
    for index, (cost, a, b) in enumerate(zip(problems.cost, problems.a, problems.b, strict=True)):
        rows, columns = a.nonzero()[:, 0], b.nonzero()[:, 0]
        part = (a[rows], b[columns], cost[rows[:, None], columns])
        x, y, c = (tensor.double().cpu().numpy() for tensor in part)
        solved = ot.emd(x / x.sum(), y / y.sum(), c, numItermax=10_000_000) * x.sum()
        plan[index, rows[:, None], columns] = torch.from_numpy(solved).to(plan)
    return plan
