from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file
from trainers import ENGLISH, SGD, SWAHILI, assert_close, changed, logged, weights

from optical_hf import OpticalStudent, OpticalTeacher, RetrievalSet
from optical_hf.data.training_rows import FEATURES
from optical_hf.training.retrieval_args import OpticalRetrievalArguments
from optical_hf.training.retrieval_trainer import OpticalRetrievalTrainer

CONFIG = Path(__file__).parents[2] / "examples" / "accelerate_configs" / "two_cpu.yaml"
RUNS = {
    "contrast": SGD,
    "hybrid": {**SGD, "alpha": 0.5, "learn_temperatures": True, "encode_batch_size": 2},
    "cached": {**SGD, "encode_batch_size": 1},
    "all": {**SGD, "divergence_weight": 0.5, "margin_weight": 0.1, "retention_weight": 0.5, "learning_rate": 0.01},
}


def make_rows(count: int, scores: bool = True) -> Dataset:
    """Rows of sw-sw, sw-en, en-en and en-sw in turn, of none to three negatives."""
    chance = random.Random(0)
    words = {"sw": SWAHILI, "en": ENGLISH}
    pairs = [("sw", "sw"), ("sw", "en"), ("en", "en"), ("en", "sw")]
    rows = []
    for index in range(count):
        asked, answered = pairs[index % 4]
        passages = [" ".join(chance.choices(words[answered], k=chance.randint(4, 9))) for _ in range(1 + index % 4)]
        rows.append(
            {
                "query": " ".join(chance.choices(words[asked], k=chance.randint(2, 5))),
                "query_language": asked,
                "document_language": answered,
                "passages": passages,
                "scores": [chance.random() for _ in passages] if scores and index % 3 else None,
                "docids": [f"d{index}.{place}" for place in range(len(passages))],
                # The passage of the row four places on answers this query too.
                "positives": [f"d{index}.0", f"d{(index + 4) % count}.0"],
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def make_trainer(encoder, folder, rows=None, held_out=None, *, model=None, **options) -> OpticalRetrievalTrainer:
    names = ("retrieval_sets", "document_model", "languages", "callbacks")
    given = {name: options.pop(name) for name in names if name in options}
    defaults = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "warmup_steps": 0}
    defaults |= {"per_device_train_batch_size": 4, "save_strategy": "no"}
    return OpticalRetrievalTrainer(
        model or OpticalStudent.from_checkpoint(encoder),
        OpticalRetrievalArguments(str(folder), **{**defaults, **options}),
        rows,
        held_out,
        **given,
    )


@pytest.fixture
def build(tiny_encoder, tmp_path):
    def build(*args, folder="out", **options):
        return make_trainer(tiny_encoder, tmp_path / folder, *args, **options)

    return build


def record(trainer) -> list[list[str]]:
    # The queries of every batch that the loss sees.
    seen: list[list[str]] = []
    compute_loss = trainer.compute_loss

    def recording(model, inputs, *args, **kwargs):
        if model.training:
            ids = inputs["query_input_ids"]
            seen.append(trainer.data_collator.query_model.tokenizer.batch_decode(ids, skip_special_tokens=True))
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = recording
    return seen


def train_in_two_processes(encoder: str, folder: str) -> None:
    results = {}
    for name, options in RUNS.items():
        trainer = make_trainer(encoder, Path(folder) / name, make_rows(32), per_device_train_batch_size=2, **options)
        seen = record(trainer)
        trainer.train()
        trainer.save_model()
        results[name] = {
            "seen": gather_object([seen]),
            "log": trainer.state.log_history,
            "temperatures": trainer.temperatures,
        }
    if trainer.args.process_index == 0:
        (Path(folder) / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def two_processes(tiny_encoder, tmp_path_factory) -> Path:
    """Folder with what `RUNS` gave in two processes."""
    folder = tmp_path_factory.mktemp("two-processes")
    script = folder / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {[str(Path(__file__).parents[i]) for i in (0, 1)]!r}\n"
        "import test_retrieval_trainer as test\nfrom optical_hf.launching import end_processes\n"
        "test.train_in_two_processes(*sys.argv[1:])\nend_processes()\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG), str(script)]
    done = subprocess.run(
        [*command, str(tiny_encoder), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_share_their_passages_and_train_as_one(build, tiny_encoder, two_processes, name):
    results = json.loads((two_processes / "results.json").read_text())[name]
    options = {key: value for key, value in RUNS[name].items() if key != "encode_batch_size"}
    whole = build(make_rows(32), **options)
    seen = record(whole)
    whole.train()
    assert [one + other for one, other in zip(*results["seen"], strict=True)] == seen
    start, after = weights(OpticalStudent.from_checkpoint(tiny_encoder)), weights(whole.model)
    assert max(float((after[each] - start[each]).abs().max()) for each in start) > 1e-3
    assert_close(after, load_file(two_processes / name / "model.safetensors"), atol=1e-5)
    assert results["temperatures"] == pytest.approx(whole.temperatures, rel=1e-5)
    for key in ("loss", "token_contrast", "pooled_contrast", "loss_sw"):
        expected = logged(whole, key)
        assert expected and [entry[key] for entry in results["log"] if key in entry] == pytest.approx(
            expected, rel=1e-4, abs=1e-5
        )


def gradient(trainer, rows) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(rows)))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradient_caching_changes_nothing(build, dropout):
    rows = make_rows(12)
    options = {"divergence_weight": 1.0, "dropout": dropout}
    found = []
    for size in (100, 5) if not dropout else (5, 5):
        trainer = build(rows, encode_batch_size=size, **options)
        torch.manual_seed(0)
        found.append(gradient(trainer, rows))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_close(found[0][1], found[1][1], atol=1e-5)
    assert max(float(each.abs().max()) for each in found[0][1].values()) > 1e-2


def test_loss_by_hand(build):
    rows = make_rows(8)
    weighted = {"contrastive_weight": 0.5, "divergence_weight": 2.0, "margin_weight": 0.25, "pooled_weight": 0.0}
    trainer = build(rows, negatives=2, score_temperature=0.5, token_temperature=0.05, **weighted)
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(rows))).item()
    owners, passages = [], []
    for index, row in enumerate(rows):
        owners += [(index, place) for place in range(len(row["passages"][:3]))]
        passages += row["passages"][:3]
    queries = trainer.model.encode_tokens(rows["query"][:], "query")
    documents = trainer.model.encode_tokens(passages, "document")
    total = 0.0
    for index, row in enumerate(rows):
        scores = {
            owner: (queries[index] @ document.T).amax(1).mean() / 0.05
            for owner, document in zip(owners, documents, strict=True)
        }
        own = torch.stack([score for owner, score in scores.items() if owner[0] == index])
        kept = [score for owner, score in scores.items() if owner == (index, 0) or owner != ((index + 4) % 8, 0)]
        total += 0.5 * (torch.stack(kept).logsumexp(0) - own[0]).item()
        if row["scores"]:
            targets = torch.tensor(row["scores"][:3]) / 0.5
            probabilities = targets.softmax(0)
            total += 2.0 * (probabilities * (targets.log_softmax(0) - own.log_softmax(0))).sum().item()
            margins = (own[0] - own[1:]) - (targets[0] - targets[1:])
            total += 0.25 * margins.square().mean().item() if len(own) > 1 else 0.0
    assert loss == pytest.approx(total / 8, rel=1e-4)


def test_retention_is_nought_at_the_start_and_of_english_rows_only(build):
    rows = make_rows(16, scores=False)
    trainer = build(rows, retention_weight=1.0, learning_rate=0.05, optim="sgd", max_steps=4)
    trainer.train()
    retention = logged(trainer, "token_retention")
    assert retention[0] == pytest.approx(0.0, abs=1e-5) and max(retention[1:]) > 1e-4
    swahili = rows.filter(lambda row: row["query_language"] == "sw")
    without = build(swahili, retention_weight=1.0, optim="sgd", max_steps=2)
    without.train()
    assert logged(without, "token_retention") == []


def test_a_document_model_stays_as_it_is_and_serves_the_evaluation(build, tiny_encoder):
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    before, student = weights(teacher), OpticalStudent.from_checkpoint(tiny_encoder)
    asked = RetrievalSet(
        "sw", {"q": "nani aliandika"}, {"a": "she wrote this", "b": "it rains"}, {"q": {"a": 1}}, "sw", "en"
    )
    trainer = build(make_rows(16), model=student, document_model=teacher, retrieval_sets=[asked], **SGD)
    trainer.train()
    assert not changed(before, weights(teacher)) and changed(before, weights(student))
    metrics = trainer.evaluate()
    assert set(metrics) == {"eval_sw_ndcg@10", "eval_sw_pooled_ndcg@10", "eval_ndcg@10", "eval_pooled_ndcg@10"}
    best = max(
        asked.passages,
        key=lambda d: float(
            student.encode_pooled(["nani aliandika"], "query")
            @ teacher.encode_pooled([asked.passages[d]], "document").T
        ),
    )
    assert metrics["eval_sw_pooled_ndcg@10"] == pytest.approx(1.0 if best == "a" else 0.63093, abs=1e-5)


def test_retrieval_sets_alone_are_evaluated_while_it_trains_and_choose_the_best(build, tmp_path):
    asked = RetrievalSet(
        "sw", {"q": "nani aliandika"}, {"a": "she wrote this", "b": "it rains"}, {"q": {"a": 1}}, "sw", "en"
    )
    options = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 4}
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "ndcg@10"}
    trainer = build(make_rows(16), retrieval_sets=(each for each in [asked]), **{**SGD, **options})
    trainer.train()
    figures = logged(trainer, "eval_ndcg@10")
    assert len(figures) == 2 and all(round(figure, 5) in (1.0, 0.63093) for figure in figures)
    assert trainer.state.best_metric == max(figures)
    best = 2 * (1 + figures.index(max(figures)))
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / f"checkpoint-{best}")
    with pytest.raises(ValueError, match="didn't pass an `eval_dataset`"):
        build(make_rows(16), **{**SGD, **options})


def test_training_finds_the_passages_of_its_rows(build):
    rows = make_rows(16, scores=False)
    trainer = build(rows, learning_rate=1e-3, num_train_epochs=30, freeze_embeddings=False)
    trainer.train()
    accuracy = logged(trainer, "accuracy")
    assert sum(accuracy[:4]) / 4 < 0.7 < 0.95 < sum(accuracy[-4:]) / 4


def test_temperatures_are_learnt_saved_and_resumed(build, tmp_path):
    options = {**SGD, "max_steps": 8, "learn_temperatures": True, "save_strategy": "steps", "save_steps": 4}
    whole = build(make_rows(32), folder="whole", **options)
    whole.train()
    assert whole.temperatures["token"] != pytest.approx(0.01, rel=1e-3)
    assert logged(whole, "token_temperature")[0] == pytest.approx(0.01)
    (tmp_path / "whole" / "checkpoint-8").rename(tmp_path / "gone")
    resumed = build(make_rows(32), folder="whole", **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.temperatures == pytest.approx(whole.temperatures, rel=1e-6)
    assert_close(weights(whole.model), weights(resumed.model), atol=1e-6)
    (tmp_path / "whole" / "checkpoint-4" / "optical_temperatures.json").write_text("{}")
    with pytest.raises(ValueError, match="optical_temperatures.json is missing or damaged"):
        build(make_rows(32), folder="whole", **options).train(
            resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4")
        )


def test_hybrid_batches_go_on_where_a_resumed_training_stopped(build, tmp_path):
    options = {**SGD, "max_steps": 12, "alpha": 0.5, "save_strategy": "steps", "save_steps": 5, "save_total_limit": 9}
    whole = build(make_rows(32), folder="whole", **options)
    seen = record(whole)
    whole.train()
    resumed = build(make_rows(32), folder="whole", **options)
    later = record(resumed)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    assert len(seen) == 12 and later == seen[5:]
    with pytest.raises(ValueError, match="alpha is 0.5 there, 0.25 here"):
        build(make_rows(32), folder="whole", **{**options, "alpha": 0.25}).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="rows is '"):
        build(make_rows(28), folder="whole", **options).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "--alpha must be a number of at least 0 and at most 1, got 1.5"),
        ({"contrastive_weight": 0.0}, "are 0: nothing would be learnt, got 0.0"),
        ({"token_weight": 0.0, "pooled_weight": 0.0}, "are both 0: nothing would be learnt"),
        ({"divergence_weight": 1.0}, "need the scores of a teacher, and no row has them"),
        ({"alpha": 0.5, "per_device_train_batch_size": 9}, "has 8 rows, fewer than the 9 of a batch"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(make_rows(32, scores=False), max_steps=1, **options).train()


def test_held_out_rows_are_one_dataset(build):
    for held_out, name in (({"sw": make_rows(4)}, "dict"), (make_rows(4).to_iterable_dataset(), "IterableDataset")):
        with pytest.raises(ValueError, match=f"`eval_dataset` is a {name}; give one Dataset of all languages"):
            build(make_rows(8), held_out)


def test_a_teacher_is_not_trained(build, tiny_encoder):
    with pytest.raises(ValueError, match="is frozen: load the same folder as OpticalStudent"):
        build(make_rows(8), model=OpticalTeacher.from_checkpoint(tiny_encoder))


def test_a_stream_needs_languages_and_has_no_hybrid_batches(build):
    stream = make_rows(32).to_iterable_dataset()
    with pytest.raises(ValueError, match="`languages` is needed for a stream"):
        build(stream, max_steps=1)
    with pytest.raises(ValueError, match="`alpha` needs all rows in memory"):
        build(stream, max_steps=1, alpha=0.5, languages=["sw", "en"])
    trainer = build(stream, languages=["sw", "en"], **SGD)
    assert trainer.train().global_step == 4


def test_a_loss_that_is_not_finite_stops_the_training(build, tiny_encoder):
    broken = OpticalStudent.from_checkpoint(tiny_encoder)
    broken.backbone.encoder.layer[0].output.dense.weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="Step 1: the loss is not finite"):
        build(make_rows(8), model=broken, **SGD).train()
