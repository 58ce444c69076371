from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ot
import pytest
import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from safetensors.torch import load_file
from trainers import SGD, assert_close, changed, logged, make_bitext, make_trainer, record, weights
from transformers import BertConfig, BertModel, TrainerCallback

from optical_hf import (
    OpticalStudent,
    OpticalTeacher,
    RetrievalSet,
)
from optical_hf.data.bitext_augmentation import with_concatenation

CONFIG = Path(__file__).parents[2] / "examples" / "accelerate_configs" / "two_cpu.yaml"
RUNS = {
    "random": {**SGD, "retention_share": 0.5},
    "grouped": {"train_sampling_strategy": "group_by_length", "max_steps": 8, "dropout": 0.1},
    "stream": SGD,
}


def train_in_two_processes(encoder: str, folder: str) -> None:
    results = {}
    for name, options in RUNS.items():
        bitext = make_bitext(16)
        if name == "stream":
            options = {**options, "languages": ["sw"]}
            bitext = bitext.to_iterable_dataset()
        trainer = make_trainer(encoder, Path(folder) / name, bitext, per_device_train_batch_size=2, **options)
        seen = record(trainer)
        trainer.train()
        trainer.save_model()
        results[name] = {"seen": gather_object([seen]), "log": trainer.state.log_history}
    if trainer.args.process_index == 0:
        (Path(folder) / "results.json").write_text(json.dumps(results))


def outputs(trainer, rows):
    # What the loss gets: the teacher's output and the student's, for a batch of these pairs.
    batch = trainer.data_collator(list(rows))
    names = ("input_ids", "attention_mask", "scoring_mask")
    sides = (("teacher", trainer.teacher), ("student", trainer.model))
    with torch.no_grad():
        return [model(**{name: batch[f"{side}_{name}"] for name in names}) for side, model in sides]


def vectors_by_hand(model, text: str, role: str = "query", pooled: bool = False) -> list[list[float]]:
    return model.encode([text], role, pooled=True).tolist() if pooled else model.encode(text, role).tolist()


def maxsim_by_hand(query: list[list[float]], document: list[list[float]]) -> float:
    return sum(max(sum(a * b for a, b in zip(q, d, strict=True)) for d in document) for q in query)


@pytest.fixture(scope="module")
def two_processes(tiny_encoder, tmp_path_factory) -> Path:
    """Folder with what `RUNS` gave in two processes."""
    folder = tmp_path_factory.mktemp("two-processes")
    script = folder / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = {[str(Path(__file__).parents[i]) for i in (0, 1)]!r}\n"
        "import test_distillation_trainer as test, torch, weakref\nfrom optical_hf.launching import end_processes\n"
        "test.train_in_two_processes(*sys.argv[1:])\n"
        # While anything holds the group its threads run, and a process that exits then is now and then aborted.
        "group = weakref.ref(torch.distributed.group.WORLD)\nend_processes()\nassert group() is None\n"
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


def test_accumulation_and_processes_give_the_weights_of_one_batch(build, tiny_encoder, two_processes):
    whole = build(make_bitext(16), folder="whole", **RUNS["random"])
    seen = record(whole)
    whole.train()
    halves = build(
        make_bitext(16),
        folder="halves",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        **RUNS["random"],
    )
    halves.train()
    results = json.loads((two_processes / "results.json").read_text())["random"]
    assert [len(process) for process in results["seen"]] == [4, 4]
    assert [one + other for one, other in zip(*results["seen"], strict=True)] == seen

    start = weights(OpticalStudent.from_checkpoint(tiny_encoder))
    after = weights(whole.model)
    assert max(float((after[name] - start[name]).abs().max()) for name in start) > 1e-3
    assert_close(after, weights(halves.model), atol=1e-6)
    assert_close(after, load_file(two_processes / "random" / "model.safetensors"), atol=1e-6)
    # By language, the means over the pairs of both processes, not of the processes' means.
    for name in ("loss", "cost", "plan_entropy", "maxsim_divergence", "pooled_divergence", "loss_en", "loss_sw"):
        # Steps of 1e-2 make more of a difference in rounding: up to 4e-6 of a loss here, and machines differ.
        expected = logged(whole, name)
        assert len(expected) == 4 or name == "loss_en"
        assert logged(halves, name) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert [entry[name] for entry in results["log"] if name in entry] == pytest.approx(
            expected, rel=1e-4, abs=1e-6
        )


def test_a_collator_without_keys_trains_the_same(build):
    losses = []
    for keyed in (True, False):
        trainer = build(make_bitext(8), max_steps=4, **({} if keyed else {"teacher_memory": 0.0}))
        if not keyed:
            collate = trainer.data_collator
            trainer.data_collator = lambda pairs, collate=collate: {
                name: value for name, value in collate(pairs).items() if name != "teacher_keys"
            }
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_hybrid_batches_are_of_one_language(build):
    trainer = build(make_bitext(32, ("sw", "yo")), alpha=0.5, retention_share=0.5, max_steps=24, logging_steps=1)
    trainer.train()
    languages = [{name for name in entry if name.startswith("loss_")} for entry in trainer.state.log_history[:-1]]
    assert all(len(names) == 1 for names in languages)
    # In expectation 12 of English, and 6 of each other language.
    counts = [sum(names == {f"loss_{language}"} for names in languages) for language in ("en", "sw", "yo")]
    assert sum(counts) == 24 and 6 <= counts[0] <= 18 and min(counts) >= 2
    with pytest.raises(ValueError, match="there is no monolingual row"):
        build(make_bitext(32), alpha=0.5, retention_share=0.0, max_steps=1).train()
    with pytest.raises(ValueError, match="`alpha` needs all pairs in memory"):
        build(make_bitext(32).to_iterable_dataset(), alpha=0.5, max_steps=1, languages=["sw"])


def test_every_pair_comes_once_an_epoch_in_two_processes_with_dropout(two_processes):
    processes = json.loads((two_processes / "results.json").read_text())["grouped"]["seen"]
    orders = []
    for start in (0, 4):
        epoch = [text for process in processes for batch in process[start : start + 4] for text in batch]
        assert sorted(epoch) == sorted(make_bitext(16)["translation"])
        orders.append(epoch)
    assert orders[0] != orders[1]


def test_a_stream_in_two_processes_gives_the_weights_of_one(build, two_processes):
    trainer = build(make_bitext(16).to_iterable_dataset(), languages=["sw"], **RUNS["stream"])
    trainer.train()
    assert_close(weights(trainer.model), load_file(two_processes / "stream" / "model.safetensors"), atol=1e-6)


@pytest.mark.parametrize("source", ["random", "group_by_length", "stream"])
def test_resuming_equals_not_stopping(source, build, tmp_path):
    def trainer(folder, teacher_memory=0.0, **options):
        options["teacher_memory"] = teacher_memory
        if source == "stream":
            bitext = make_bitext(40).to_iterable_dataset()
            return build(bitext, folder=folder, languages=["sw"], max_steps=8, dropout=0.1, **options)
        bitext = make_bitext(16)
        return build(bitext, folder=folder, train_sampling_strategy=source, max_steps=8, dropout=0.1, **options)

    whole = trainer("whole", save_strategy="steps", save_steps=1, save_total_limit=10)
    seen = record(whole)
    whole.train()
    expected = weights(whole.model)
    for step in (3, 4, 6):  # within the first epoch of four steps, at its end, and within the second
        resumed = trainer(f"resumed-{step}")
        seen_after = record(resumed)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert seen_after == seen[step:]
        assert changed(expected, weights(resumed.model)) == set()
        assert logged(resumed, "loss") == logged(whole, "loss")

    resumed = trainer("resumed-from-4", teacher_memory=1.0)  # what is kept was encoded in other batches
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert_close(expected, weights(resumed.model), atol=1e-5)

    resumed = trainer("resumed-without")
    resumed._load_rng_state = lambda _: None
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert len(changed(expected, weights(resumed.model))) > 10  # dropout is on, so the random state matters


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_that_of_the_arguments(dropout, build):
    trainer = build(make_bitext(4), dropout=dropout)
    assert trainer.model.config.text_config.hidden_dropout_prob == 0.1
    trainer.model.train()
    trainer.teacher.train()
    teacher, student = zip(*(outputs(trainer, make_bitext(4)) for _ in range(2)), strict=True)
    assert torch.equal(teacher[0].pooled, teacher[1].pooled)
    assert torch.equal(student[0].pooled, student[1].pooled) == (dropout == 0.0)


def test_the_teacher_stays_as_it_is_and_out_of_the_checkpoint(build, tiny_encoder, tmp_path):
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder).requires_grad_(True)
    trainer = build(make_bitext(8), make_bitext(8), teacher=teacher, max_steps=2, save_strategy="steps", save_steps=2)
    before, student = weights(teacher), trainer.model
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    assert trainer.teacher is teacher
    assert changed(before, weights(teacher)) == set()
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())

    sizes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    for folder in (tmp_path / "out", tmp_path / "out" / "checkpoint-2"):
        saved = load_file(folder / "model.safetensors")
        assert {name: tensor.shape for name, tensor in saved.items()} == sizes
        files = {path.name for path in folder.iterdir() if path.suffix not in (".json", ".py", ".safetensors")}
        # No pickle but those of the Trainer: above all no training_args.bin.
        expected = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
        assert files == (expected if folder.name == "checkpoint-2" else {"checkpoint-2"})
    state = torch.load(folder / "optimizer.pt", weights_only=True)
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    moments = sorted(entry["exp_avg"].numel() for entry in state["state"].values())
    assert moments == sorted(parameter.numel() for parameter in trainable)
    assert sum(len(group["params"]) for group in state["param_groups"]) == len(trainable)


def test_nan_in_the_teacher_names_step_and_pair(build, tiny_encoder, tiny_tokenizer):
    rows = [
        {"english": "who wrote it", "translation": "nani aliandika", "language": "sw"},
        {"english": "it rains today", "translation": "mvua leo", "language": "sw"},
        {"english": "the book", "translation": "hicho kitabu", "language": "ha"},
    ]
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    trainer = build(Dataset.from_list(rows), teacher=teacher, max_steps=1)
    before = weights(trainer.model)
    teacher.backbone.embeddings.word_embeddings.weight.data[tiny_tokenizer.convert_tokens_to_ids("rains")] = math.nan
    with pytest.raises(FloatingPointError, match="Step 1: the teacher's vectors are not finite, for sw: ") as error:
        trainer.train()
    assert [row["translation"] in str(error.value) for row in rows] == [False, True, False]
    assert changed(before, weights(trainer.model)) == set()
    with pytest.raises(FloatingPointError, match="teacher's vectors are not finite: its weights are damaged"):
        build(Dataset.from_list(rows), teacher=teacher)


@pytest.mark.parametrize("scalar", [False, True])
def test_nan_in_the_loss_names_step_and_pair_before_a_weight_changes(scalar, build):
    calls = []

    def loss(teacher, student):
        losses = (teacher.pooled - student.pooled).square().sum(-1)
        calls.append(1)
        if len(calls) == 4:  # the second half of the second step
            losses = losses * torch.tensor([1.0, math.nan])
        return losses.mean() if scalar else losses, {}

    class Snapshot(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            self.weights = weights(model)

    snapshot = Snapshot()
    trainer = build(
        make_bitext(8),
        loss=loss,
        callbacks=[snapshot],
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=2,
    )
    start, seen = weights(trainer.model), record(trainer)
    with pytest.raises(FloatingPointError, match="Step 2: the loss is not finite") as error:
        trainer.train()
    named = [text for batch in seen for text in batch if f"sw: {text!r}" in str(error.value)]
    assert named == (seen[3] if scalar else seen[3][1:])
    assert changed(start, snapshot.weights)
    assert changed(snapshot.weights, weights(trainer.model)) == set()


def test_vectors_of_another_size_need_a_projection(build, tiny_tokenizer, tmp_path):
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(tmp_path / "small")
    tiny_tokenizer.save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="32 dimensions, the student's 16.*`projection_dim=32`"):
        build(make_bitext(8), student=OpticalStudent.from_checkpoint(tmp_path / "small"))
    student = OpticalStudent.from_checkpoint(tmp_path / "small", projection_dim=32)
    projection = student.projection.weight.detach().clone()
    trainer = build(make_bitext(8), student=student, learning_rate=1e-2, per_device_train_batch_size=8, max_steps=20)
    trainer.train()
    losses = logged(trainer, "loss")
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert not torch.equal(student.projection.weight, projection)


def test_a_callable_loss_trains_and_logs(build):
    def pairwise(teacher, student):
        losses = (teacher.pooled - student.pooled).square().sum(-1)
        return losses, {"answer": 42.0, "largest": losses.detach().max()}

    def scalar(teacher, student):
        losses, numbers = pairwise(teacher, student)
        return losses.mean(), numbers

    runs = [build(make_bitext(8), loss=loss, max_steps=2, learning_rate=1e-2) for loss in (pairwise, scalar, "mse")]
    for trainer in runs:
        trainer.train()
    assert_close(weights(runs[0].model), weights(runs[1].model), atol=1e-6)
    assert_close(weights(runs[0].model), weights(runs[2].model), atol=1e-6)
    for trainer in runs[:2]:
        assert logged(trainer, "answer") == [42.0, 42.0]
        assert logged(trainer, "loss") == pytest.approx(logged(runs[2], "loss"))
        assert all(a > b > 0 for a, b in zip(logged(trainer, "largest"), logged(trainer, "loss"), strict=True))
    assert logged(runs[0], "loss_sw") == pytest.approx(logged(runs[0], "loss"))
    assert logged(runs[1], "loss_sw") == []
    with pytest.raises(ValueError, match="Unknown loss 'sinkhorn'.*'ot', 'greedy', 'mse'"):
        build(make_bitext(8), loss="sinkhorn")
    with pytest.raises(ValueError, match="`pooled_weight` and `score_weight` are all 0: nothing would be learnt"):
        build(make_bitext(8), loss="greedy", token_weight=0.0, pooled_weight=0.0, score_weight=0.0)


def test_the_logged_numbers_of_a_step_by_hand(build):
    rows = list(make_bitext(5, ("sw", "sw", "ha")))
    rows.append({"english": "who wrote it", "translation": "who wrote it today", "language": "en"})
    trainer = build(
        Dataset.from_list(rows),
        solver="exact",
        centre=False,
        token_weight=2.0,
        pooled_weight=0.5,
        score_weight=0.25,
        token_temperature=0.1,
        pooled_temperature=0.3,
        bank_size=4,
        retention_weight=3.0,
        per_device_train_batch_size=6,
        max_steps=1,
        learning_rate=0.0,
    )
    trainer.train()
    costs, losses, tokens = [], {"en": [], "ha": [], "sw": []}, []
    divergences = {"maxsim": [], "pooled": []}
    bank = [row["english"] for row in rows[:4]]
    for row in rows:
        teacher = trainer.teacher.encode(row["english"], "query").double()
        student = trainer.model.encode(row["translation"], "query").double()
        cost = (1 - teacher @ student.T).numpy()
        costs.append(ot.emd2([1 / len(teacher)] * len(teacher), [1 / len(student)] * len(student), cost))
        sides = [(trainer.teacher, row["english"]), (trainer.model, row["translation"])]
        for name, temperature, pooled in (("maxsim", 0.1, False), ("pooled", 0.3, True)):
            shares = []
            for model, text in sides:
                query = vectors_by_hand(model, text, pooled=pooled)
                documents = [vectors_by_hand(trainer.teacher, one, pooled=pooled) for one in [row["english"], *bank]]
                powers = [math.exp(maxsim_by_hand(query, one) / len(query) / temperature) for one in documents]
                shares.append([power / sum(powers) for power in powers])
            divergences[name].append(sum(p * math.log(p / q) for p, q in zip(*shares, strict=True)))
        distance = math.dist(*(vectors_by_hand(*side, pooled=True)[0] for side in sides)) ** 2
        losses[row["language"]].append(
            2.0 * costs[-1] + 0.5 * distance + 0.25 * (divergences["maxsim"][-1] + divergences["pooled"][-1])
        )
        tokens.append(student)
    log = trainer.state.log_history[0]
    assert {name: len(values) for name, values in losses.items()} == {"en": 1, "ha": 1, "sw": 4}
    for language, values in losses.items():
        assert log[f"loss_{language}"] == pytest.approx(sum(values) / len(values), abs=1e-5)
    assert log["cost"] == pytest.approx(sum(costs) / 6, abs=1e-5)
    for name, values in divergences.items():
        assert sum(values) > 0.1
        assert log[f"{name}_divergence"] == pytest.approx(sum(values) / 6, abs=1e-5)
    assert log["loss"] == pytest.approx((3 * sum(losses["en"]) + sum(losses["ha"] + losses["sw"])) / 6, abs=1e-5)
    together = torch.cat(tokens)
    spread = float(torch.cdist(together, together.mean(0)[None]).square().mean().sqrt())
    assert log["vector_spread"] == pytest.approx(spread, abs=1e-5)
    assert 0 < log["plan_entropy"] < 1


class Weights(TrainerCallback):
    """Puts the given weights into the student at the end of each step."""

    def __init__(self, states) -> None:
        self.states = states

    def on_step_end(self, args, state, control, model, **kwargs):
        model.load_state_dict(self.states[state.global_step - 1])


def test_evaluation_by_hand_and_the_best_checkpoint(build, tiny_encoder, tmp_path):
    passages = {f"d{index}": text for index, text in enumerate(make_bitext(12)["english"])}
    sets = [
        RetrievalSet(
            name,
            {f"q{index}": text for index, text in enumerate(topics)},
            passages,
            {f"q{index}": {f"d{index}": 1} for index in range(len(topics))},
            name,
            "en",
        )
        for name, topics in (("sw", make_bitext(4)["translation"]), ("ha", list(passages.values())[:3]))
    ]
    held_out = list(make_bitext(24, ("sw", "ha")))
    for row in held_out[:9]:  # some are easy, the others random
        row["translation"] = row["english"]

    teacher = weights(OpticalTeacher.from_checkpoint(tiny_encoder))
    torch.manual_seed(0)
    noisy = [
        {name: tensor + scale * torch.randn_like(tensor) for name, tensor in teacher.items()} for scale in (0.5, 2)
    ]
    trainer = build(
        make_bitext(16),
        Dataset.from_list(held_out),
        retrieval_sets=sets,
        callbacks=[Weights([noisy[0], teacher, noisy[1]])],
        learning_rate=0.0,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        metric_for_best_model="eval_ndcg@10",
        load_best_model_at_end=True,
    )
    trainer.train()
    assert logged(trainer, "loss_sw") == pytest.approx(logged(trainer, "loss"))
    assert logged(trainer, "loss_ha") == []  # what is evaluated is not counted among what is trained on
    values = logged(trainer, "eval_ndcg@10")
    assert len(values) == 3 and values[1] > max(values[0], values[2]) + 0.1
    assert trainer.state.best_global_step == 2
    assert trainer.state.best_metric == values[1]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-2")
    assert changed(teacher, weights(trainer.model)) == set()

    trainer.model.load_state_dict(noisy[0])
    metrics = trainer.evaluate()
    for name, pooled in (("ndcg@10", False), ("pooled_ndcg@10", True)):
        found = []
        documents = [vectors_by_hand(trainer.teacher, text, "document", pooled) for text in passages.values()]
        for one in sets:
            gains = []
            for index, topic in enumerate(one.topics.values()):
                query = vectors_by_hand(trainer.model, topic, pooled=pooled)
                scores = [maxsim_by_hand(query, document) for document in documents]
                rank = 1 + sum(score > scores[index] for score in scores)
                gains.append(1 / math.log2(rank + 1) if rank <= 10 else 0.0)
            found.append(sum(gains) / len(gains))
            assert metrics[f"eval_{one.name}_{name}"] == pytest.approx(found[-1], abs=1e-6)
        assert metrics[f"eval_{name}"] == pytest.approx(sum(found) / 2, abs=1e-6)
        assert 0 < metrics[f"eval_{name}"] < 1

    accuracies, reverse = [], []
    for language in ("ha", "sw"):
        rows = [row for row in held_out if row["language"] == language]
        translations = [vectors_by_hand(trainer.model, row["translation"]) for row in rows]
        sentences = [vectors_by_hand(trainer.teacher, row["english"]) for row in rows]
        own = range(len(rows))
        for found, queries, documents in ((accuracies, translations, sentences), (reverse, sentences, translations)):
            scores = [[maxsim_by_hand(query, document) for document in documents] for query in queries]
            found.append(sum(scores[index].index(max(scores[index])) == index for index in own) / len(rows))
        assert metrics[f"eval_translation_accuracy_{language}"] == pytest.approx(accuracies[-1])
    assert metrics["eval_translation_accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert 0 < sum(accuracies) < 2 and accuracies != reverse


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda held_out: {"sw": held_out}, "dict"),
        (lambda held_out: held_out.to_iterable_dataset(), "IterableDataset"),
    ],
)
def test_held_out_bitext_that_is_not_one_dataset(make, name, build):
    with pytest.raises(ValueError, match=f"`eval_dataset` is a {name}; give one Dataset of all languages"):
        build(make_bitext(8), make(make_bitext(4)), languages=["sw"])


def test_evaluation_with_the_default_arguments(build):
    trainer = build(make_bitext(8), make_bitext(6), train_sampling_strategy="group_by_length", loss="mse")
    metrics = trainer.evaluate()
    sides = [trainer.teacher.encode(make_bitext(6)["english"][:], "query", pooled=True)]
    sides.append(trainer.model.encode(make_bitext(6)["translation"][:], "query", pooled=True))
    assert metrics["eval_loss"] == pytest.approx(float((sides[0] - sides[1]).square().sum(-1).mean()), abs=1e-5)
    assert trainer.evaluate(make_bitext(3))["eval_loss"] != metrics["eval_loss"]


def test_an_english_pair_costs_a_copy_of_the_teacher_nothing(build):
    trainer = build(make_bitext(8), solver="exact", retention_share=1.0, per_device_train_batch_size=16, max_steps=1)
    assert sorted(trainer.train_dataset["language"]) == ["en"] * 8 + ["sw"] * 8
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss_en"] == pytest.approx(0.0, abs=1e-5)
    assert log["loss_sw"] > 0.5
    assert log["loss"] == pytest.approx(log["loss_sw"] / 2, abs=1e-5)


def test_retention_weight_scales_and_a_share_of_zero_adds_nothing(build):
    bitext = make_bitext(6, ("sw", "en"))  # "English" sentences that a copy of the teacher does not agree on
    for weight in (0.0, 1.0, 3.0):
        trainer = build(bitext, retention_weight=weight)
        assert trainer.train_dataset["language"][:] == bitext["language"][:]
        apart, _ = trainer.loss_function(*outputs(trainer, bitext))
        others, english = float(apart[0::2].sum()), float(apart[1::2].sum())
        assert english > 1
        with torch.no_grad():
            loss = float(trainer.compute_loss(trainer.model, trainer.data_collator(list(bitext))))
        assert loss == pytest.approx((others + weight * english) / 6, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        ({}, {"embeddings"}),
        ({"freeze_embeddings": False}, set()),
        ({"freeze_layers": 1}, {"embeddings", "encoder.layer.0"}),
        ({"freeze_layers": 2, "freeze_embeddings": False}, {"encoder.layer.0", "encoder.layer.1"}),
    ],
)
def test_frozen_parts_stay_bit_by_bit(options, frozen, build):
    # Every word occurs, so that every row of the embedding table would change.
    trainer = build(make_bitext(16), per_device_train_batch_size=16, max_steps=1, **options)
    before = weights(trainer.model)
    trainer.train()
    kept = {name for name in before if any(name.startswith(f"backbone.{part}.") for part in frozen)}
    # A key's bias adds the same to all scores of a query: the softmax takes it out, and its gradient is rounding.
    moved = {name for name in before if name not in kept and not name.endswith("key.bias")}
    after = changed(before, weights(trainer.model))
    assert len(moved) > 3 and moved <= after and not kept & after


def test_more_frozen_layers_than_there_are(build):
    with pytest.raises(ValueError, match="`freeze_layers` is 3, and the student has 2 layers"):
        build(make_bitext(4), freeze_layers=3)


def test_bf16_trains_with_nearly_the_loss_of_float32(build):
    losses = {}
    for bf16 in (False, True):
        options = {"per_device_train_batch_size": 8, "max_steps": 3, "learning_rate": 1e-3, "teacher_memory": 0.0}
        trainer = build(make_bitext(8), bf16=bf16, **options)
        dtypes = []
        for side in (trainer.teacher, trainer.model):
            layer = side.backbone.encoder.layer[0].intermediate.dense
            layer.register_forward_hook(lambda *call, dtypes=dtypes: dtypes.append(call[2].dtype))
        trainer.train()
        assert dtypes == [torch.bfloat16 if bf16 else torch.float32] * 6
        losses[bf16] = logged(trainer, "loss")
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
    assert losses[True][0] != losses[False][0]
    assert losses[True][0] == pytest.approx(losses[False][0], rel=0.05)
    assert len(losses[True]) == 3 and all(math.isfinite(loss) for loss in losses[True])
    assert losses[True][2] < losses[True][0]


def test_a_folder_that_cannot_be_made(build, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc/x"), tmp_path / "file" / "out"):
        with pytest.raises(OSError, match=f"output folder {folder} cannot be written.*choose another"):
            build(make_bitext(4), folder=folder)


def test_a_full_disk_stops_before_the_first_step(build, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100_000))
    trainer = build(make_bitext(4), save_strategy="steps", max_steps=1)
    before = weights(trainer.model)
    with pytest.raises(OSError, match=rf"output folder {tmp_path / 'out'} has 0\.0 GB free.*--save_strategy no"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert changed(before, weights(trainer.model)) == set()


def test_a_stream_trains_with_its_languages(build):
    rows = list(make_bitext(12, ("sw", "ha")))
    for stream in (Dataset.from_list(rows).to_iterable_dataset(), IterableDataset.from_generator(lambda: iter(rows))):
        with pytest.raises(ValueError, match="`languages` is needed for a stream"):
            build(stream, max_steps=1)
        with pytest.raises(ValueError, match="language 'ha', not one of"):
            build(stream, languages=["sw"], max_steps=2).train()
        trainer = build(
            stream, languages=["sw", "ha"], max_steps=3, retention_share=1.0, mark_dropout=0.8, learning_rate=1e-2
        )
        before, seen = weights(trainer.model), record(trainer)
        trainer.train()
        expected = [text for row in rows for text in (row["translation"], row["english"])]
        assert [text for batch in seen for text in batch] == expected[:12]
        assert changed(before, weights(trainer.model))
        assert (
            len(logged(trainer, "loss_en")) == len(logged(trainer, "loss_sw")) == len(logged(trainer, "loss_ha")) == 3
        )


@pytest.mark.parametrize("streamed", [False, True])
def test_concatenated_pairs_are_those_that_are_trained_on(build, streamed):
    bitext = make_bitext(12, ("sw", "ha"))
    joined = list(with_concatenation(bitext, 3, seed=7))
    assert len(joined) < 12 and max(len(row["translation"].split()) for row in joined) > 7
    expected = [text for row in joined for text in (row["translation"], row["english"])]  # each retained in English
    given = {"languages": ["sw", "ha"]} if streamed else {}
    options = {"concatenation": 3, "retention_share": 1.0, "roles": ["document"], "seed": 7, **given}
    trainer = build(bitext.to_iterable_dataset() if streamed else bitext, max_steps=2, **options)
    assert [row["translation"] for row in trainer.train_dataset] == expected
    assert [row["english"] for row in trainer.train_dataset][::2] == [row["english"] for row in joined]
    if not streamed:
        count = {text: len(trainer.teacher.tokenizer.encode(text)) for row in joined for text in row.values()}
        sides = [(row["translation"], row["english"]) for row in trainer.train_dataset]
        lengths = [100_000 * count[translation] + count[english] for translation, english in sides]
        assert list(trainer.train_dataset[trainer.args.length_column_name]) == lengths
    seen = record(trainer)
    trainer.train()
    assert {text for batch in seen for text in batch} <= set(expected) and len(seen) == 2


@pytest.mark.parametrize("options", [{"solver": "unbalanced", "reg_m": 1.0}, {"solver": "partial"}])
def test_solvers_that_need_not_move_all_mass_train(build, options):
    options = {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "max_steps": 12, **options}
    trainer = build(make_bitext(8), pooled_weight=0.0, score_weight=0.0, **options)
    trainer.train()
    losses = logged(trainer, "loss")
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < 0.9 * losses[0]
