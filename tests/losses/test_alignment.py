from __future__ import annotations

import math
from contextlib import nullcontext

import ot
import pytest
import torch
from torch.nn.functional import normalize

from optical_hf import OpticalTeacher
from optical_hf.losses.alignment import GreedyLoss, OTLoss, mse_loss
from optical_hf.losses.score_bank import ScoreBank, first_sentences
from optical_hf.models.modeling_optical import OpticalOutput
from optical_hf.training.finite_checks import FiniteChecks
from optical_hf.training.logged_numbers import LoggedNumbers

LENGTHS = ((3, 5), (6, 2), (1, 4), (4, 4))


def ragged(lengths: list[int], seed: int) -> OpticalOutput:
    generator = torch.Generator().manual_seed(seed)
    vectors = normalize(torch.randn(len(lengths), max(lengths), 8, generator=generator, dtype=torch.float64), dim=-1)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    pooled = normalize((vectors * mask[..., None]).sum(1), dim=-1)
    return OpticalOutput(token_vectors=vectors, scoring_mask=mask, pooled=pooled)


def one(output: OpticalOutput, row: int) -> OpticalOutput:
    mask = output.scoring_mask[row : row + 1]
    vectors = output.token_vectors[row : row + 1, : int(mask.sum())]
    return OpticalOutput(
        token_vectors=vectors, scoring_mask=torch.ones(1, vectors.shape[1]).bool(), pooled=output.pooled[row : row + 1]
    )


@pytest.fixture
def teacher() -> OpticalOutput:
    return ragged([n for n, _ in LENGTHS], seed=1)


@pytest.fixture
def student() -> OpticalOutput:
    return ragged([m for _, m in LENGTHS], seed=2)


def test_ot_loss_is_the_exact_cost_of_each_pair(teacher, student):
    losses, numbers = OTLoss(solver="exact", pooled_weight=0.0)(teacher, student)
    expected = []
    for row, (n, m) in enumerate(LENGTHS):
        cost = (1 - teacher.token_vectors[row, :n] @ student.token_vectors[row, :m].T).numpy()
        expected.append(ot.emd2([1 / n] * n, [1 / m] * m, cost))
    assert losses.tolist() == pytest.approx(expected, abs=1e-7)  # the masses are in float32
    assert float(numbers["cost"]) == pytest.approx(sum(expected) / 4, abs=1e-7)
    assert 0 < float(numbers["plan_entropy"]) < 1


def test_greedy_loss_by_hand():
    teacher = OpticalOutput(
        token_vectors=torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]]),
        scoring_mask=torch.tensor([[True, True, False]]),
        pooled=torch.tensor([[1.0, 0.0]]),
    )
    student = OpticalOutput(
        token_vectors=torch.tensor([[[0.6, 0.8], [-1.0, 0.0]]]),
        scoring_mask=torch.tensor([[True, True]]),
        pooled=torch.tensor([[0.0, 1.0]]),
    )
    losses, numbers = GreedyLoss(pooled_weight=0.5)(teacher, student)
    # The first token's nearest has cosine 0.8, the second's 0; the pooled vectors are sqrt(2) apart.
    assert losses.tolist() == pytest.approx([(0.2 + 1.0) / 2 + 0.5 * 2.0])
    assert float(numbers["cost"]) == pytest.approx(0.6)


def test_mse_loss_is_the_squared_distance(teacher, student):
    losses, numbers = mse_loss(teacher, student)
    cosine = (teacher.pooled * student.pooled).sum(-1)
    torch.testing.assert_close(losses, (2 - 2 * cosine).float())
    assert numbers == {}


@pytest.mark.parametrize(
    "loss",
    [
        OTLoss(),
        OTLoss(centre=torch.full((8,), 0.2)),
        *(OTLoss(solver=solver) for solver in ("sinkhorn_log", "ipot", "exact", "unbalanced", "partial")),
        GreedyLoss(),
        mse_loss,
    ],
)
def test_a_padded_batch_equals_its_pairs(loss, teacher, student):
    together, _ = loss(teacher, student)
    alone = [loss(one(teacher, row), one(student, row))[0].item() for row in range(len(LENGTHS))]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("loss", [OTLoss(pooled_weight=0.0), GreedyLoss(pooled_weight=0.0)])
def test_only_the_students_tokens_get_a_gradient(loss, teacher, student):
    teacher.token_vectors.requires_grad_()
    student.token_vectors.requires_grad_()
    loss(teacher, student)[0].sum().backward()
    assert teacher.token_vectors.grad is None
    moved = student.token_vectors.grad.abs().sum(-1) > 0
    assert torch.equal(moved, student.scoring_mask)


def test_a_permutation_of_the_teacher_costs_nothing(teacher):
    order = torch.tensor([2, 0, 1, 3, 4, 5])  # within the first three tokens
    moved = OpticalOutput(
        token_vectors=teacher.token_vectors[1:2, order],
        scoring_mask=teacher.scoring_mask[1:2],
        pooled=teacher.pooled[1:2],
    )
    losses, numbers = OTLoss(solver="exact")(one(teacher, 1), moved)
    assert losses.item() == pytest.approx(0.0, abs=1e-9)
    assert float(numbers["plan_entropy"]) == pytest.approx(0.0, abs=1e-9)


def test_centring_makes_the_plan_of_anisotropic_vectors_sharper(teacher, student):
    cone = torch.full((8,), 3.0, dtype=torch.float64)
    for output in (teacher, student):
        output.token_vectors = normalize(output.token_vectors + cone, dim=-1)
    centre = torch.cat([output.token_vectors[output.scoring_mask] for output in (teacher, student)]).mean(0)
    _, plain = OTLoss()(teacher, student)
    _, centred = OTLoss(centre=centre)(teacher, student)
    assert float(centred["cost"]) > 10 * float(plain["cost"])
    assert all(math.isfinite(float(value)) for value in (*plain.values(), *centred.values()))


def test_divergence_of_scores_by_hand():
    teacher = OpticalOutput(
        token_vectors=torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
        scoring_mask=torch.tensor([[True, True]]),
        pooled=torch.tensor([[1.0, 0.0]]),
    )
    student = OpticalOutput(
        token_vectors=torch.tensor([[[0.6, 0.8], [0.8, -0.6], [9.0, 9.0]]]),
        scoring_mask=torch.tensor([[True, True, False]]),
        pooled=torch.tensor([[0.8, 0.6]]),
    )
    bank = ScoreBank(
        pooled=torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]]),
        tokens=torch.tensor([[[1.0, 0.0], [9.0, 9.0]], [[0.0, 1.0], [0.0, -1.0]]]),
        mask=torch.tensor([[True, False], [True, True]]),
        pooled_temperature=0.25,
        token_temperature=0.5,
    )

    def divergence(target: list[float], scores: list[float], temperature: float) -> float:
        p, q = (torch.tensor(one).div(temperature).softmax(0) for one in (target, scores))
        return float((p * (p / q).log()).sum())

    maxsim, pooled = bank.divergence(teacher, student)
    # The own sentence, then those of the bank: mean over the query's tokens of the largest cosine.
    expected = divergence([(1 + 1) / 2, (1 + 0) / 2, (0 + 1) / 2], [(0.8 + 0.8) / 2, 0.7, (0.8 + 0.6) / 2], 0.5)
    assert maxsim.tolist() == pytest.approx([expected], abs=1e-6)
    assert pooled.tolist() == pytest.approx([divergence([1, 0, -1, 0.6], [0.8, 0.6, -0.8, 0.96], 0.25)], abs=1e-6)
    assert all(one.tolist() == pytest.approx([0.0], abs=1e-6) for one in bank.divergence(teacher, teacher))


def test_divergence_of_a_padded_batch_is_that_of_its_pairs(teacher, student):
    sentences = ragged([4, 2, 5], seed=3)
    bank = ScoreBank(sentences.pooled.float(), sentences.token_vectors.float(), sentences.scoring_mask, 0.1, 0.1)
    loss = OTLoss(solver="exact", token_weight=3.0, pooled_weight=0.5, bank=bank, score_weight=2.0)
    losses, numbers = loss(teacher, student)
    alone = [float(loss(one(teacher, row), one(student, row))[0]) for row in range(len(LENGTHS))]
    assert losses.tolist() == pytest.approx(alone, rel=1e-5)  # the bank is in float32
    scores = numbers["maxsim_divergence"] + numbers["pooled_divergence"]
    assert float(losses.mean()) == pytest.approx(
        float(3.0 * numbers["cost"] + 0.5 * numbers["pooled_distance"] + 2.0 * scores), rel=1e-5
    )


def test_scores_of_a_bank_and_their_gradient_are_those_of_the_padded_product():
    torch.manual_seed(0)
    lengths = [1, 30, 8, 9, 17, 8, 3, 40, 2]
    bank_tokens, bank_mask = torch.randn(len(lengths), 40, 8), torch.zeros(len(lengths), 40, dtype=torch.bool)
    for row, length in enumerate(lengths):  # not from the left: a document's skipped tokens lie between the others
        bank_mask[row, torch.randperm(40)[:length]] = True
    bank = ScoreBank(torch.randn(1, 8), bank_tokens, bank_mask, token_temperature=0.3)
    teacher, student = ragged([4, 7, 2], seed=1), ragged([5, 6, 9], seed=2)
    gradients = []
    for padded in (False, True):
        vectors = student.token_vectors.detach().float().requires_grad_()
        query = OpticalOutput(token_vectors=vectors, scoring_mask=student.scoring_mask, pooled=student.pooled.float())
        if padded:
            scores = []
            for side in (teacher, query):
                every = torch.einsum("qtd,spd->qtsp", side.token_vectors.float(), bank_tokens)
                best = every.masked_fill(~bank_mask, -1e9).amax(3)
                own = torch.einsum("qtd,qpd->qtp", side.token_vectors.float(), teacher.token_vectors.float())
                own = own.masked_fill(~teacher.scoring_mask[:, None], -1e9).amax(2, keepdim=True)
                mask = side.scoring_mask[..., None]
                scores.append((torch.cat([own, best], 2) * mask).sum(1) / mask.sum(1) / 0.3)
            target = scores[0].log_softmax(1)
            maxsim = (target.exp() * (target - scores[1].log_softmax(1))).sum(1)
        else:
            maxsim = bank.divergence(teacher, query)[0]
        maxsim.sum().backward()
        gradients.append((maxsim.detach(), vectors.grad))
    assert float(gradients[0][1].abs().max()) > 0.01
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", ["ot", "greedy", "mse"])
def test_no_loss_looks_at_its_numbers_on_an_accelerator(loss, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *device, **options: nullcontext())  # which knows no meta device

    # As a GPU would have to be waited for. Tensors of the meta device have no numbers: to look at one is an error.
    def bare(output: OpticalOutput) -> OpticalOutput:
        return OpticalOutput(**{name: tensor.detach().to("meta") for name, tensor in output.items()})

    sentences = ragged([4, 2, 5], seed=3)
    bank = ScoreBank(sentences.pooled.float(), sentences.token_vectors, sentences.scoring_mask)
    bank.pooled, bank._packed.matrix = bank.pooled.to("meta"), bank._packed.matrix.to("meta")
    teacher, student = bare(ragged([4, 7, 2], seed=1)), bare(ragged([5, 6, 9], seed=2))
    student.token_vectors.requires_grad_()
    student.pooled.requires_grad_()
    made = {"ot": OTLoss(bank=bank), "greedy": GreedyLoss(bank=bank), "mse": mse_loss}[loss]
    losses, numbers = made(teacher, student)
    losses.mean().backward()
    assert student.pooled.grad.shape == student.pooled.shape and losses.shape == (3,)
    logged = LoggedNumbers()
    logged.add(numbers)
    logged.add_spread(student)
    logged.add_by_language(losses.detach(), torch.zeros(3, dtype=torch.long, device="meta"), ["en", "sw"])
    FiniteChecks().add(losses, 3, str)
    with pytest.raises(RuntimeError, match="meta"):  # the one look, at a log
        logged.take()


def test_bank_holds_what_the_teacher_says(tiny_encoder):
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    sentences = ["the book", "she wrote it today", "who rains"]
    bank = ScoreBank.encode(teacher, sentences, "query", first=2)
    tokens, pooled = teacher.encode(sentences, "query", pooled="both")
    torch.testing.assert_close(bank.pooled, pooled)
    torch.testing.assert_close(bank.tokens[0][bank.mask[0]], tokens[0])
    torch.testing.assert_close(bank.mean, torch.cat(tokens[:2]).mean(0))
    assert bank.mask.sum(1).tolist() == [len(tokens[0]), len(tokens[1])]


def test_first_sentences_differ():
    pairs = [{"english": text} for text in ("a", "a", "b", "b", "c", "d")]
    assert first_sentences(pairs, 3) == ["a", "b", "c"]
