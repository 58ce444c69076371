"""Transport plans of a batch, beside POT's exact solver problem by problem, and POT's own batch of Sinkhorn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..transport import cosine_cost, marginals, transport_plan
from .comparison import Comparison, compare
from .setup import Setup, sample_bitext

EPSILON = 0.1  # in deviations of the cost, the default


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure the default solver on 64 problems of 48 by 48 tokens, of several pairs of the sample joined to one."""
    count, size = setup.size((64, 48), (4, 6))
    pairs, sides = sample_bitext()[: 7 * count], []
    for column in ("english", "translation"):
        joined = [" ".join(pairs[column][start : start + 7]) for start in range(0, len(pairs["english"]), 7)]
        sides.append(setup.teacher.encode_tokens(joined, "document", show_progress=False))
    long_enough = [pair for pair in zip(*sides, strict=True) if min(map(len, pair)) >= size]
    if not long_enough:
        raise ValueError(f"{setup.checkpoint} makes fewer than {size} token vectors of every text: choose another.")
    teacher, student = (torch.stack([vectors[:size] for vectors in side]) for side in zip(*long_enough, strict=True))
    cost, count = cosine_cost(teacher, student, centre=True).to(setup.device), len(long_enough)
    masses = marginals(torch.ones(count, size, dtype=torch.bool, device=setup.device))

    def exact_loop() -> Callable[[], Tensor]:
        import ot

        def solve() -> Tensor:
            a, costs = masses.double().cpu().numpy(), cost.double().cpu().numpy()
            plans = [ot.emd(mass, mass, problem) for mass, problem in zip(a, costs, strict=True)]
            return torch.stack([torch.from_numpy(plan) for plan in plans]).to(cost)

        return solve

    def batched() -> Callable[[], Tensor]:
        from ot.batch import solve_batch

        def solve() -> Tensor:
            scaled = cost / cost.std((1, 2), keepdim=True, correction=0)
            options = {"reg": EPSILON, "max_iter": 200, "tol": 1e-3, "method": "log_sinkhorn", "grad": "detach"}
            return solve_batch(scaled, a=masses, b=masses, **options).plan

        return solve

    def notes(ours: Tensor, theirs: Tensor | None) -> list[str]:
        errors = [f"{marginal_error(plan, masses, masses):.0e}" for plan in (ours, theirs) if plan is not None]
        costs = [float((plan * cost).sum()) / count for plan in (ours, theirs) if plan is not None]
        return [f"error of the marginals {' and '.join(errors)}", f"cost {' and '.join(f'{c:.4f}' for c in costs)}"]

    for peer, make_peer in {"POT emd, one by one": exact_loop, "POT solve_batch, log_sinkhorn": batched}.items():
        yield compare(
            f"transport, {count} problems of {size} x {size}",
            lambda: transport_plan(cost, masses, masses, epsilon=EPSILON),
            peer,
            make_peer,
            rounds=setup.rounds,
            now=setup.now,
            notes=notes,
        )


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> float:
    """Largest share of a problem's mass that a plan of the batch misses its marginals by."""
    missed = (plan.sum(2) - a).abs().sum(1) + (plan.sum(1) - b).abs().sum(1)
    return float((missed / a.sum(1)).max())
