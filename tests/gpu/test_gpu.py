"""What a GPU has to show: the numbers of the CPU, and no wait for it inside a step.

`pytest -n 0 tests/gpu` runs them where there is a GPU. `OPTICAL_HF_TEST_DEVICE=cpu` rehearses them without one.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
from torch.nn.functional import normalize
from trainers import assert_close, logged, make_bitext, weights

from optical_hf import OpticalStudent, OpticalTeacher, maxsim
from optical_hf.losses.alignment import GreedyLoss, OTLoss, mse_loss
from optical_hf.losses.score_bank import ScoreBank
from optical_hf.models.modeling_optical import OpticalOutput
from optical_hf.retrieval.index.build import build_index
from optical_hf.transport import SOLVERS, cosine_cost, marginals, transport_plan

DEVICE = os.environ.get("OPTICAL_HF_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="There is no GPU.")


@pytest.fixture(autouse=True)
def full_float32():
    """Float32 products, which TF32 would round to ten bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def sentences(seed: int, tokens: int, batch: int = 16, dim: int = 24) -> OpticalOutput:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, tokens + 1, (batch,), generator=generator)
    vectors = normalize(torch.randn(batch, tokens, dim, generator=generator), dim=-1)
    return OpticalOutput(
        token_vectors=vectors,
        scoring_mask=torch.arange(tokens)[None] < lengths[:, None],
        pooled=normalize(torch.randn(batch, dim, generator=generator), dim=-1),
    )


def on(device: str, output: OpticalOutput) -> OpticalOutput:
    return OpticalOutput(**{name: tensor.detach().to(device) for name, tensor in output.items()})


@pytest.mark.parametrize("solver", SOLVERS)
def test_plans_are_those_of_the_cpu(solver):
    plans = []
    for device in ("cpu", DEVICE):
        teacher, student = on(device, sentences(0, 30)), on(device, sentences(1, 40))
        cost = cosine_cost(teacher.token_vectors, student.token_vectors, teacher.scoring_mask, student.scoring_mask)
        sides = marginals(teacher.scoring_mask), marginals(student.scoring_mask)
        plans.append(transport_plan(cost, *sides, solver=solver, epsilon=1.0 if solver == "ipot" else 0.1).cpu())
    # A plan that converged to a thousandth on one device may take ten iterations more on the other.
    torch.testing.assert_close(plans[0], plans[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("loss", [OTLoss, partial(OTLoss, solver="exact"), GreedyLoss, None])
def test_losses_and_gradients_are_those_of_the_cpu(loss):
    found = []
    for device in ("cpu", DEVICE):
        teacher, student = on(device, sentences(2, 20)), on(device, sentences(3, 25))
        bank = on(device, sentences(4, 15, batch=9))
        student.token_vectors.requires_grad_()
        student.pooled.requires_grad_()
        made = ScoreBank(bank.pooled, bank.token_vectors, bank.scoring_mask)
        losses, _ = mse_loss(teacher, student) if loss is None else loss(bank=made)(teacher, student)
        losses.sum().backward()
        gradients = [tensor.grad for tensor in (student.token_vectors, student.pooled) if tensor.grad is not None]
        found.append([tensor.detach().cpu() for tensor in (losses, *gradients)])
    torch.testing.assert_close(found[0], found[1], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("loss", ["ot", "greedy", "mse"])
def test_steps_are_those_of_the_cpu(loss, build):
    trained = []
    for use_cpu in (True, DEVICE == "cpu"):
        options = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 3, "retention_share": 0.5}
        trainer = build(make_bitext(16), loss=loss, use_cpu=use_cpu, **options)
        trainer.train()
        trained.append(
            ({name: tensor.cpu() for name, tensor in weights(trainer.model).items()}, logged(trainer, "loss"))
        )
    assert trained[1][1] == pytest.approx(trained[0][1], rel=1e-3)
    assert_close(trained[0][0], trained[1][0], atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_with_nearly_the_loss_of_float32(precision, build):
    if DEVICE == "cpu" and precision == "fp16":
        pytest.skip("fp16 needs a GPU")
    losses = []
    for half in (False, True):
        options = {precision: True} if half else {}
        trainer = build(make_bitext(16), use_cpu=DEVICE == "cpu", max_steps=3, learning_rate=1e-3, **options)
        trainer.train()
        losses.append(logged(trainer, "loss"))
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]


@pytest.mark.skipif(DEVICE == "cpu", reason="There is nothing to wait for on a CPU.")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("loss", ["ot", "greedy", "mse"])
def test_no_step_waits_for_the_gpu(loss, precision, build):
    options = {"max_steps": 6, "logging_steps": 100, "per_device_train_batch_size": 8, "bf16": precision == "bf16"}
    trainer = build(make_bitext(48), use_cpu=False, loss=loss, **options)
    training_step, steps = trainer.training_step, []

    def watched(*args, **kwargs):
        steps.append(1)
        torch.cuda.set_sync_debug_mode("error" if len(steps) > 2 else "default")  # the first ones make things
        try:
            return training_step(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer.training_step = watched
    trainer.train()
    assert len(steps) == 6


def test_what_is_not_finite_is_still_named(build):
    trainer = build(make_bitext(16), use_cpu=DEVICE == "cpu", max_steps=4, logging_steps=2)
    compute = trainer.loss_function

    def spoilt(teacher, student):
        losses, numbers = compute(teacher, student)
        return losses * torch.where(torch.arange(len(losses), device=losses.device) == 1, torch.nan, 1.0), numbers

    trainer.loss_function = spoilt
    with pytest.raises(FloatingPointError, match="Step 1: the loss is not finite, for sw: "):
        trainer.train()


def test_vectors_and_scores_are_those_of_the_cpu(tiny_encoder):
    texts = make_bitext(100)["english"][:]
    found = []
    for device in ("cpu", DEVICE):
        model = OpticalTeacher.from_checkpoint(tiny_encoder).to(device)
        tokens, pooled = model.encode_both(texts, "document")
        queries = model.encode_tokens(texts[:7], "query")
        scores = maxsim([query.to(device) for query in queries], [document.to(device) for document in tokens])
        found.append([torch.cat(tokens), pooled, scores.cpu()])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    half = OpticalStudent.from_checkpoint(tiny_encoder, dtype=torch.bfloat16).to(DEVICE)
    assert float((half.encode_pooled(texts, "document") * found[0][1]).sum(1).min()) > 0.99


def test_an_index_gives_the_run_of_the_cpu(tiny_encoder, tmp_path):
    model = OpticalTeacher.from_checkpoint(tiny_encoder).to(DEVICE)
    passages = [(f"d{number}", text) for number, text in enumerate(make_bitext(50)["english"][:])]
    index = build_index(model, passages, tmp_path / "index", shard_size=7)
    queries = model.encode_tokens(["who wrote the book", "it rains"], "query")
    runs = [index.search([query.to(device) for query in queries], ["q1", "q2"], k=50) for device in ("cpu", DEVICE)]
    for query in ("q1", "q2"):
        assert runs[1][query] == pytest.approx(runs[0][query], abs=1e-5)
