from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch

from optical_hf import transport_solvers
from optical_hf.transport import SOLVERS, cosine_cost, marginals, plan_entropy, transport_loss, transport_plan
from optical_hf.transport_solvers import (
    Kernel,
    LogDomain,
    Potentials,
    Problems,
    balanced_step,
    partial_step,
    unbalanced_step,
)

BALANCED = ("sinkhorn", "sinkhorn_log", "ipot", "exact")
SHAPES = [(1, 1), (1, 7), (6, 1), (3, 5), (12, 9), (8, 8), (5, 11)]
SETTLED = {"iterations": 4000, "tolerance": 1e-12}


def random_mask(generator: torch.Generator, counts: list[int], width: int) -> torch.Tensor:
    mask = torch.zeros(len(counts), width, dtype=torch.bool)
    for row, count in enumerate(counts):
        mask[row, torch.randperm(width, generator=generator)[:count]] = True
    return mask


@pytest.fixture(scope="module")
def ragged():
    """Random costs and weighted marginals; the valid tokens are scattered among the padding."""
    generator = torch.Generator().manual_seed(0)
    rows = random_mask(generator, [n for n, _ in SHAPES], 13)
    columns = random_mask(generator, [m for _, m in SHAPES], 12)
    cost = torch.rand(len(SHAPES), 13, 12, generator=generator, dtype=torch.float64)
    a = marginals(rows, torch.rand(rows.shape, generator=generator, dtype=torch.float64) + 0.2)
    b = marginals(columns, torch.rand(columns.shape, generator=generator, dtype=torch.float64) + 0.2)
    return cost, a, b


def unpadded(cost, a, b):
    for index in range(len(cost)):
        rows, columns = a[index] > 0, b[index] > 0
        yield index, cost[index][rows][:, columns], a[index][rows], b[index][columns], (rows, columns)


def one_by_one(plan, problem):
    index, _, _, _, (rows, columns) = problem
    return plan[index][rows][:, columns]


def spread(cost, a, b):
    weights = np.outer(a / a.sum(), b / b.sum())
    return math.sqrt((weights * (cost.numpy() - (weights * cost.numpy()).sum()) ** 2).sum()) or float(cost.abs().max())


def assert_close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual, torch.as_tensor(expected), atol=tolerance, rtol=0, check_dtype=False)


# Plans, against POT


@pytest.mark.parametrize("solver", BALANCED)
def test_balanced_plans_have_their_marginals(ragged, solver):
    cost, a, b = ragged
    plan = transport_plan(cost, a, b, solver=solver)
    assert_close(plan.sum(2), a)
    assert_close(plan.sum(1), b)
    assert (plan >= 0).all() and plan.dtype == torch.float64


@pytest.mark.parametrize("solver", ["sinkhorn", "sinkhorn_log"])
@pytest.mark.parametrize("epsilon", [0.03, 0.1, 1.0])
def test_sinkhorn_is_pot_sinkhorn(ragged, solver, epsilon):
    plan = transport_plan(*ragged, solver=solver, epsilon=epsilon, relative_epsilon=False, **SETTLED)
    for problem in unpadded(*ragged):
        _, cost, a, b, _ = problem
        expected = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", numItermax=20000, stopThr=1e-12)
        assert_close(one_by_one(plan, problem), expected)


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("exact", {}),
        ("ipot", {"epsilon": 1.0, "iterations": 3000}),
        ("sinkhorn", {"epsilon": 0.006, **SETTLED, "iterations": 8000}),
        ("sinkhorn_log", {"epsilon": 0.006, **SETTLED, "iterations": 8000}),
    ],
)
def test_exact_cost(ragged, solver, options):
    loss = transport_loss(ragged[0], transport_plan(*ragged, solver=solver, **options))
    assert_close(loss, [float(ot.emd2(a, b, cost)) for _, cost, a, b, _ in unpadded(*ragged)], 1e-5)


def test_ipot_is_its_paper_s_algorithm(ragged):
    plan = transport_plan(*ragged, solver="ipot", epsilon=0.5, relative_epsilon=False, iterations=60)
    for problem in unpadded(*ragged):
        _, cost, a, b, _ = problem
        kernel, expected, v = torch.exp(-cost / 0.5), torch.outer(a, b), torch.ones_like(b)
        for _ in range(60):
            proximal = kernel * expected
            u = a / (proximal @ v)
            v = b / (proximal.T @ u)
            expected = u[:, None] * proximal * v
        if (expected.sum(1) - a).abs().max() < 1e-8:  # before rounding both must have arrived
            assert_close(one_by_one(plan, problem), expected)
        assert_close((one_by_one(plan, problem) * cost).sum(), (expected * cost).sum(), 1e-2)


@pytest.mark.parametrize(("epsilon", "reg_m"), [(0.05, 0.1), (0.1, 1.0), (0.1, 5.0)])
@pytest.mark.parametrize("masses", [1.0, 2.5])
def test_unbalanced_is_pot_unbalanced(ragged, epsilon, reg_m, masses):
    cost, a, b = ragged
    options = {"solver": "unbalanced", "epsilon": epsilon, "reg_m": reg_m, "relative_epsilon": False, **SETTLED}
    plan = transport_plan(cost, a * masses, b, **options)
    for problem in unpadded(cost, a * masses, b):
        _, part, x, y, _ = problem
        solve = ot.unbalanced.sinkhorn_unbalanced
        expected = solve(x, y, part, epsilon, reg_m, reg_type="kl", numItermax=20000, stopThr=1e-13)
        assert_close(one_by_one(plan, problem), expected)


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_partial_is_pot_partial(ragged, share):
    plan = transport_plan(
        *ragged, solver="partial", epsilon=0.1, relative_epsilon=False, partial_mass=share, **SETTLED
    )
    assert_close(plan.sum((1, 2)), torch.full((len(SHAPES),), share))
    assert (plan.sum(2) <= ragged[1] + 1e-9).all() and (plan.sum(1) <= ragged[2] + 1e-9).all()
    for problem in unpadded(*ragged):
        _, cost, a, b, _ = problem
        # POT measures the entropy against a constant, we against a b^T: the difference is a term of the cost.
        shifted = (cost - 0.1 * torch.log(torch.outer(a, b))).numpy()
        expected = ot.partial.entropic_partial_wasserstein(
            a.numpy(), b.numpy(), shifted, 0.1, m=share * (1 - 1e-12), numItermax=20000, stopThr=1e-13
        )
        assert_close(one_by_one(plan, problem), expected)


def test_sharp_partial_has_the_exact_partial_cost(ragged):
    # The entropy's share of the cost vanishes with epsilon: 5e-5 at 0.006, 1e-5 at 0.003, 2e-6 here.
    plan = transport_plan(
        *ragged, solver="partial", epsilon=0.002, partial_mass=0.6, iterations=20000, tolerance=1e-12
    )
    expected = [
        float(ot.partial.partial_wasserstein2(a.numpy(), b.numpy(), cost.numpy(), m=0.6))
        for _, cost, a, b, _ in unpadded(*ragged)
    ]
    assert_close(transport_loss(ragged[0], plan), expected, 1e-5)


# Steps


def first_step(ragged, epsilon, share=1.0):
    """Problems, and the potentials after a first step in the log domain."""
    cost, a, b = ragged
    cost = cost.masked_fill((a == 0)[:, :, None] | (b == 0)[:, None, :], 0.0) / epsilon
    problems = Problems(cost, a, b, share * a.sum(1))
    zero = Potentials(torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(a[:, :1]), torch.zeros_like(a[:, :1]))
    return problems, balanced_step(LogDomain(problems), zero)


def test_a_kernel_s_half_steps_are_those_of_the_log_domain(ragged):
    problems, potentials = first_step(ragged, 0.05)
    kernel, logs = Kernel(problems, potentials), LogDomain(problems)
    generator = torch.Generator().manual_seed(7)
    f, g = (x + 3 * torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in potentials[:2])
    for actual, expected, padding in (
        (kernel.match_rows(g), logs.match_rows(g), ragged[1] == 0),
        (kernel.match_columns(f), logs.match_columns(f), ragged[2] == 0),
    ):
        assert_close(actual, expected, 1e-11)
        assert (actual[padding] == 0).all() and actual.abs().max() > 1


def test_drift_is_how_far_a_kernel_s_entry_has_grown():
    half, zero = torch.full((1, 2), 0.5), torch.zeros(1, 1)
    problems = Problems(torch.tensor([[[5.0, 5.0], [9.0, 9.0]]]), half, half, torch.ones(1))
    kernel = Kernel(problems, Potentials(torch.zeros(1, 2), torch.zeros(1, 2), zero, zero + 7))
    assert kernel.drift.item() == 7.0  # from the kernels before
    assert_close(kernel.match_rows(torch.zeros(1, 2)), [[5.0, 9.0]], 1e-5)
    assert_close(kernel.drift, [[9.0]], 1e-5)  # the second row's entries: from exp(-9) to 1
    g = kernel.match_columns(torch.tensor([[5.0, 12.0]]))
    shrunk = math.log((1 + math.exp(3.0)) / 2)
    assert_close(g, [[-shrunk, -shrunk]], 1e-5)
    assert_close(kernel.drift, [[12.0 - shrunk]], 1e-5)


def test_a_partial_step_caps_its_potentials_and_moves_its_mass(ragged):
    problems, potentials = first_step(ragged, 0.1, share=0.6)
    for _ in range(3):  # long before the marginals are met
        potentials = partial_step(LogDomain(problems), potentials)
        assert potentials.f.max() <= 0 and potentials.g.max() <= 0
        assert_close(potentials.plan(problems).sum((1, 2)), 0.6 * problems.a.sum(1), 1e-12)


def test_an_unbalanced_step_balances_the_prices_of_both_sides(ragged):
    problems, potentials = first_step((ragged[0], 2.5 * ragged[1], ragged[2]), 0.1)
    f, g, _, _ = unbalanced_step(LogDomain(problems), potentials, ratio=3.0)
    assert_close((problems.a * (-f / 3).exp()).sum(1), (problems.b * (-g / 3).exp()).sum(1), 1e-12)
    plain = 0.75 * LogDomain(problems).match_rows(potentials.g)  # the damping of 3 / (3 + 1)
    moved = (f - plain)[:, :1]
    assert moved.abs().min() > 1e-3
    assert_close(f, plain + moved, 1e-12)
    assert_close(g + moved, 0.75 * LogDomain(problems).match_columns(plain), 1e-12)


# Padding


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tolerance", [1e-12, 1e-2])  # with the second, some problems are solved before others
def test_a_padded_batch_equals_its_problems_one_by_one(ragged, solver, tolerance):
    cost, a, b = ragged
    options = {"solver": solver, "epsilon": 0.3, "iterations": 500, "tolerance": tolerance}
    poisoned = cost.masked_fill((a == 0)[:, :, None] | (b == 0)[:, None, :], math.nan)
    plan = transport_plan(poisoned, a, b, **options)
    assert (plan[(a == 0)[:, :, None] | (b == 0)[:, None, :]] == 0).all()
    for problem in unpadded(cost, a, b):
        _, part, x, y, _ = problem
        alone = transport_plan(part[None], x[None], y[None], **options)[0]
        assert_close(one_by_one(plan, problem), alone, 1e-9)


@pytest.mark.parametrize("centre", [False, True])
def test_cosine_cost_of_a_padded_batch(centre):
    generator = torch.Generator().manual_seed(1)
    rows, columns = (random_mask(generator, counts, 6) for counts in ([1, 3, 5], [4, 2, 6]))
    teacher = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64) + 1
    student = 3 * torch.randn(3, 6, 4, generator=generator, dtype=torch.float64) - 2
    with torch.no_grad():
        teacher[~rows], student[~columns] = math.nan, math.nan
    student.requires_grad_()
    cost = cosine_cost(teacher, student, rows, columns, centre=centre)
    cost.square().sum().backward()
    assert (student.grad[~columns] == 0).all() and student.grad[columns].isfinite().all()
    means = (teacher[rows].mean(0), student[columns].mean(0).detach()) if centre else (0, 0)
    if centre:
        assert_close(cost, cosine_cost(teacher, student, rows, columns, centre=means), 1e-12)
    for index in range(3):
        x, y = teacher[index][rows[index]] - means[0], student[index][columns[index]] - means[1]
        expected = 1 - torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=-1)
        assert_close(cost[index][rows[index]][:, columns[index]], expected, 1e-12)
        assert (cost[index][~rows[index]] == 0).all() and (cost[index][:, ~columns[index]] == 0).all()


# Gradient


def test_the_gradient_is_that_of_the_loss_with_its_plan_fixed():
    generator = torch.Generator().manual_seed(2)
    rows, columns = random_mask(generator, [3, 4], 4), random_mask(generator, [2, 5], 5)
    teacher = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    student = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    means = (torch.full((3,), 0.1), torch.full((3,), -0.2))

    def cost(x):
        return cosine_cost(teacher, x, rows, columns, centre=means)

    plan = transport_plan(cost(student), marginals(rows), marginals(columns))
    assert not plan.requires_grad
    transport_loss(cost(student), plan).sum().backward()
    expected, step = torch.zeros_like(student), 1e-6
    with torch.no_grad():
        for position in range(student.numel()):
            shift = torch.zeros_like(student)
            shift.view(-1)[position] = step
            up, down = ((plan * cost(student + sign * shift)).sum() for sign in (1, -1))
            expected.view(-1)[position] = (up - down) / (2 * step)
    assert_close(student.grad, expected, 1e-8)
    assert student.grad.abs().max() > 1e-3 and (student.grad[~columns] == 0).all()


def test_the_centre_is_a_constant():
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    student = torch.tensor([[[2.0, 1.0], [1.0, 3.0]]], requires_grad=True)
    cosine_cost(teacher, student, centre=True)[0, 0, 0].backward()
    assert student.grad[0, 0].abs().sum() > 0  # of this token only: through the mean it would reach the other
    assert student.grad[0, 1].tolist() == [0.0, 0.0]


def test_a_zero_vector_costs_one_and_has_an_ordinary_gradient():
    teacher = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    student = torch.zeros(1, 1, 2, requires_grad=True)
    cost = cosine_cost(teacher, student)
    cost.sum().backward()
    assert cost.tolist() == [[[1.0]]]
    assert_close(student.grad, [[[-0.6, -0.8]]])
    same = torch.full((1, 5, 3), 0.1)  # every vector is the mean, to rounding
    assert_close(cosine_cost(same, same, centre=True), torch.ones(1, 5, 5))


# What a plan means


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_a_permuted_sentence_costs_nothing(solver):
    generator = torch.Generator().manual_seed(3)
    teacher = torch.randn(1, 8, 16, generator=generator, dtype=torch.float64)
    order = torch.randperm(8, generator=generator)
    cost = cosine_cost(teacher, 5 * teacher[:, order])
    mass = marginals(torch.ones(1, 8))
    plan = transport_plan(cost, mass, mass, solver=solver, epsilon=0.05)
    assert_close(plan[0], torch.eye(8)[order].T / 8, 1e-7)
    assert_close(transport_loss(cost, plan), [0.0], 1e-6)
    assert_close(plan_entropy(plan), [0.0], 1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_relative_epsilon_ignores_the_cost_s_scale(ragged, solver):
    cost, a, b = ragged
    plan = transport_plan(cost, a, b, solver=solver, epsilon=0.5)
    assert_close(transport_plan(10 * cost, a, b, solver=solver, epsilon=0.5), plan, 1e-9)


def test_a_relative_epsilon_is_the_spread_s_multiple(ragged):
    plan = transport_plan(*ragged, epsilon=0.5, **SETTLED)
    for problem in unpadded(*ragged):
        _, cost, a, b, _ = problem
        reg = 0.5 * spread(cost, a, b)
        alone = transport_plan(cost[None], a[None], b[None], epsilon=reg, relative_epsilon=False, **SETTLED)[0]
        assert_close(one_by_one(plan, problem), alone)


def test_centring_spreads_the_costs_of_a_narrow_cone():
    teacher = torch.tensor([[[10.0, 1.0], [10.0, -1.0]]], dtype=torch.float64)
    student = torch.tensor([[[5.0, 1.0], [5.0, -1.0]]], dtype=torch.float64)
    norm = math.sqrt(101 * 26)
    raw, centred = cosine_cost(teacher, student), cosine_cost(teacher, student, centre=True)
    expected = torch.tensor([[1 - 51 / norm, 1 - 49 / norm], [1 - 49 / norm, 1 - 51 / norm]], dtype=torch.float64)
    assert_close(raw[0], expected, 1e-12)
    assert_close(centred[0], [[0.0, 2.0], [2.0, 0.0]], 1e-12)
    assert centred.std() > 50 * raw.std()


@pytest.mark.parametrize("solver", ["sinkhorn", "sinkhorn_log", "ipot"])
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_costs_give_the_product_of_the_marginals(ragged, solver, value, dtype):
    _, a, b = ragged
    plan = transport_plan(torch.full((len(SHAPES), 13, 12), value, dtype=dtype), a, b, solver=solver)
    assert_close(plan, a[:, :, None] * b[:, None, :])


@pytest.mark.parametrize("solver", BALANCED)
def test_one_token_takes_all(solver):
    b = torch.tensor([[0.25, 0.0, 0.75]])
    plan = transport_plan(torch.tensor([[[0.3, 9.0, 1.4]]]), torch.ones(1, 1), b, solver=solver)
    assert_close(plan[0], b)


def test_plan_entropy_by_hand():
    plans = torch.zeros(5, 2, 4)
    plans[0] = 1 / 8  # uniform
    plans[1, 0, 2] = plans[1, 1, 0] = 0.5  # one to one
    plans[2, 0, 0] = 0.75  # one row to one token, ...
    plans[2, 1, :2] = 0.125  # ... the other, with a quarter of the mass, to two of four
    plans[3, :, 1] = 0.5  # one student token
    mask = torch.tensor([[1, 1, 1, 1]] * 3 + [[0, 1, 0, 0]] + [[1, 1, 1, 1]]).bool()
    assert_close(plan_entropy(plans, mask), [1.0, 0.0, 0.125, 0.0, 0.0])
    assert_close(plan_entropy(plans), [1.0, 0.0, 0.25, 0.0, 0.0])  # of the tokens which receive mass


def test_marginals_by_hand():
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert_close(marginals(mask), [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    weights = torch.tensor([[1.0, 5.0, 3.0], [math.nan, 2.0, -1.0]], dtype=torch.float64)
    assert_close(marginals(mask, weights), [[0.25, 0.0, 0.75], [0.0, 1.0, 0.0]])
    assert marginals(mask, weights).dtype == torch.float64


# Precision


@pytest.mark.parametrize("solver", ["sinkhorn", "unbalanced", "partial"])
@pytest.mark.parametrize("epsilon", [0.1, 0.003])
def test_float32_survives_costs_of_many_epsilons(ragged, solver, epsilon):
    cost, a, b = ragged
    options = {"solver": solver, "epsilon": epsilon, "iterations": 300, "tolerance": 0.0}
    plan = transport_plan(cost.float(), a.float(), b.float(), **options)
    assert plan.dtype == torch.float32
    assert_close(plan, transport_plan(cost, a, b, **options), 1e-4)


@pytest.mark.parametrize("solver", ["sinkhorn", "sinkhorn_log"])
def test_float32_is_pot_s_float64_on_costs_of_hundreds_of_epsilons(ragged, solver):
    cost, a, b = ragged
    options = {"epsilon": 0.003, "relative_epsilon": False, "iterations": 20000, "tolerance": 1e-6}
    plan = transport_plan(cost.float(), a.float(), b.float(), solver=solver, **options)
    assert plan.dtype == torch.float32
    spans, losses = [], []
    for problem in unpadded(cost, a, b):
        _, part, x, y, _ = problem
        spans.append(float(part.max() - part.min()) / 0.003)
        expected = ot.sinkhorn(x, y, part, 0.003, method="sinkhorn_log", numItermax=50000, stopThr=1e-10)
        assert_close(one_by_one(plan, problem), expected, 1e-5)
        losses.append(float((ot.emd(x.numpy(), y.numpy(), part.numpy()) * part.numpy()).sum()))
    assert max(spans) > 300  # exp(-300) is 0 in float32
    assert_close(transport_loss(cost, plan), losses, 1e-4)


@pytest.mark.parametrize("solver", ["sinkhorn", "unbalanced", "partial"])
def test_a_problem_that_overflows_is_solved_in_the_log_domain(solver, monkeypatch):
    generator = torch.Generator().manual_seed(6)
    cost = torch.rand(8, 9, 11, generator=generator)
    a, b = (
        marginals(torch.ones(8, n), 10 ** (-weights * torch.rand(8, n, generator=generator)))
        for n, weights in ((9, torch.tensor([[0.0], [12.0]]).repeat(4, 1)), (11, 6.0))
    )
    solved, sinkhorn_log = [], transport_solvers.sinkhorn_log

    def spy(problems, *args):
        solved.append(len(problems.cost))
        return sinkhorn_log(problems, *args)

    monkeypatch.setattr(transport_solvers, "sinkhorn_log", spy)
    options = {"solver": solver, "epsilon": 0.01, "tolerance": 0.0}
    plan = transport_plan(cost, a, b, **options)
    assert len(solved) == 1 and 1 <= solved[0] <= 8
    # The exponent of float64 holds them all, but for partial plans that move furthest.
    assert_close(plan, transport_plan(cost.double(), a.double(), b.double(), **options), 1e-4)
    assert len(solved) == 1 or (solver == "partial" and solved[1] < solved[0])


@pytest.mark.parametrize(("epsilon", "decades"), [(0.1, 12.0), (0.01, 0.0)])
def test_entries_that_underflow_are_not_silently_lost(epsilon, decades):
    """Partial plans move their potentials far enough to need entries which a float32 kernel no longer holds."""
    generator = torch.Generator().manual_seed(11)
    cost = torch.rand(16, 9, 11, generator=generator)
    a, b = (marginals(torch.ones(16, n), 10 ** (-decades * torch.rand(16, n, generator=generator))) for n in (9, 11))
    options = {"solver": "partial", "epsilon": epsilon, "tolerance": 0.0}
    plan = transport_plan(cost, a, b, **options)
    assert_close(plan, transport_plan(cost.double(), a.double(), b.double(), **options), 3e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("solver", SOLVERS)
def test_half_precision_is_computed_in_float32(dtype, solver):
    generator = torch.Generator().manual_seed(4)
    teacher = torch.randn(2, 5, 8, generator=generator).to(dtype)
    student = torch.randn(2, 6, 8, generator=generator).to(dtype).requires_grad_()
    cost = cosine_cost(teacher, student)
    assert_close(cost, cosine_cost(teacher.float(), student.float()), 0.0)
    a, b = marginals(torch.ones(2, 5)), marginals(torch.ones(2, 6))
    plan = transport_plan(cost.to(dtype), a.to(dtype), b.to(dtype), solver=solver)
    assert plan.dtype == torch.float32 and plan.isfinite().all()
    if solver in BALANCED:
        assert_close(plan.sum(2), a, 1e-3)
    loss = transport_loss(cost.to(dtype), plan)
    loss.sum().backward()
    assert loss.dtype == torch.float32 and student.grad.isfinite().all()


def test_autocast_changes_nothing():
    generator = torch.Generator().manual_seed(5)
    teacher, student = (torch.randn(2, 5, 8, generator=generator) for _ in range(2))
    mass = marginals(torch.ones(2, 5))
    cost = cosine_cost(teacher, student)
    plan = transport_plan(cost, mass, mass)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(cosine_cost(teacher, student), cost, 0.0)
        assert_close(transport_plan(cost, mass, mass), plan, 0.0)


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "sinkorn"}, "'sinkorn'.*sinkhorn, sinkhorn_log, ipot, exact, unbalanced, partial"),
        ({"epsilon": -0.1}, "`epsilon` must be positive and finite, got -0.1"),
        ({"epsilon": math.nan}, "`epsilon`"),
        ({"reg_m": 0.0}, "`reg_m`"),
        ({"iterations": 0}, "`iterations`"),
        ({"tolerance": -1.0}, "`tolerance` >= 0"),
        ({"partial_mass": 0.0}, r"`partial_mass` must be in \(0, 1\], .* got 0.0"),
        ({"partial_mass": 1.1}, "`partial_mass`"),
        ({"b": torch.full((2, 4), 0.25)}, r"\(2, 3, 3\), \(2, 3\) and \(2, 4\)"),
        ({"b": torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.9, 0.0]])}, "different total masses in row 1"),
        ({"a": torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])}, "`a` has no mass in row 1"),
        ({"a": torch.tensor([[-0.5, 1.5, 0.0], [0.5, 0.5, 0.0]])}, "`a` has a negative or non-finite mass in row 0"),
        ({"cost": torch.tensor([0.0, math.nan])[:, None, None].expand(2, 3, 3)}, "`cost`.* not finite in row 1"),
        ({"cost": torch.tensor([math.inf, 0.0])[:, None, None].expand(2, 3, 3)}, "`cost`.* not finite in row 0"),
    ],
)
def test_transport_plan_errors(options, message):
    inputs = {"cost": torch.rand(2, 3, 3), "a": torch.full((2, 3), 1 / 3), "b": torch.full((2, 3), 1 / 3)} | options
    with pytest.raises(ValueError, match=message):
        transport_plan(**inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: marginals(torch.tensor([[1, 0], [0, 0]])), "no valid token in row 1"),
        (lambda: marginals(torch.ones(2, 2), torch.tensor([[1.0, 1], [0, 0]])), "sums to zero.* in row 1"),
        (lambda: marginals(torch.ones(2, 2), torch.tensor([[-1.0, 2], [1, 1]])), "negative.* in row 0"),
        (lambda: marginals(torch.ones(2, 2), torch.tensor([[1.0, 2], [1, math.nan]])), "non-finite.* in row 1"),
        (lambda: marginals(torch.ones(2, 2), torch.ones(2, 3)), r"`weights` must be \(2, 2\)"),
        (lambda: cosine_cost(torch.ones(2, 3, 4), torch.ones(2, 3, 5)), r"\(2, 3, 4\) and \(2, 3, 5\)"),
        (lambda: cosine_cost(torch.ones(2, 3, 4), torch.ones(2, 2, 4), None, torch.ones(2, 3)), "`student_mask`"),
        (lambda: cosine_cost(torch.ones(1, 1, 2), torch.ones(1, 1, 2), centre=(torch.ones(2), torch.ones(3))), "stud"),
        (lambda: transport_loss(torch.ones(2, 3, 4), torch.ones(2, 4, 3)), r"\(2, 3, 4\) and \(2, 4, 3\)"),
        (lambda: plan_entropy(torch.ones(2, 3, 4), torch.ones(2, 3)), r"`student_mask` must be \(2, 4\)"),
    ],
)
def test_other_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
