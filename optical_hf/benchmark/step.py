"""A training step: ours with its whole loss, beside sentence-transformers' distillation of single vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed

from ..export.sentence_transformers import export_single_vector
from ..models.modeling_optical import OpticalOutput, OpticalStudent
from ..training.distillation_args import OpticalTrainingArguments
from ..training.distillation_trainer import OpticalDistillationTrainer
from ..training.named_losses import make_loss
from .comparison import Comparison, Now, compare
from .machine import flop_counter
from .setup import Setup, sample_bitext


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure a step of both on the same batches, by the student of one architecture, embeddings frozen.

    The peer's labels are ready before: its teacher costs nothing. Ours encodes every batch by the teacher in the first
    epoch.
    """
    pairs = sample_bitext()
    # One line each, with the arguments of the training.
    lines: dict[str, dict[str, Any]] = {
        "training step": {"teacher_memory": 0.0},
        "training step, second epoch": {},  # the warm-up goes over all rows
    }
    if setup.device == "cuda":
        lines["training step, bf16"] = {"bf16": True, "teacher_memory": 0.0}
    for name, options in lines.items():
        yield _compare(setup, name, pairs, options)


def _compare(setup: Setup, name: str, pairs: Dataset, options: dict[str, Any]) -> Comparison:
    size, steps = setup.size(32, 4), setup.size(5, 3, 21)
    rows = spread_batches(pairs, size, steps)
    ours = {name: value for name, value in options.items() if name == "teacher_memory"}
    common = {
        "output_dir": str(setup.folder / "training"),
        "max_steps": steps,
        "per_device_train_batch_size": size,
        "learning_rate": 5e-5,
        "weight_decay": 0.01,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": setup.device == "cpu",
        **{name: value for name, value in options.items() if name not in ours},
    }
    set_seed(0)
    student = OpticalStudent.from_checkpoint(setup.checkpoint)
    args = OpticalTrainingArguments(
        **common, **ours, retention_share=0.0, mark_dropout=0.0, train_sampling_strategy="sequential"
    )
    # The bank is that of all pairs, as in a real training.
    loss = make_loss("ot", args, setup.teacher, pairs)
    trainer = OpticalDistillationTrainer(student, setup.teacher, args, rows, loss=loss, languages=["sw", "yo"])
    trainer.remove_callback(PrinterCallback)
    watch = StepSeconds(setup.now, steps - 1)
    labels = setup.teacher.encode_pooled(rows["english"][:], "query", show_progress=False)

    def make_peer() -> Callable[[], None]:
        peer = _peer_trainer(setup, rows, labels, common)
        return lambda: watch.train(peer)

    compared = compare(
        f"{name}, batch {size}",
        lambda: watch.train(trainer),
        "sentence-transformers MSELoss, labels ready",
        make_peer,
        rounds=setup.rounds,
        now=lambda: watch.total,
        dtype="bfloat16" if options.get("bf16") else "float32",
        amount=size,
        unit="pairs",
    )
    counter = flop_counter()
    train_between(trainer, counter.__enter__, lambda: counter.__exit__(None, None, None))
    compared.flops = counter.get_total_flops() / (steps - 1)
    parts = step_parts(trainer, setup.now)
    shown = ", ".join(f"{part} {share:.0%}" for part, share in parts.items())
    compared.notes.append(f"student: {shown}; all else {1 - sum(parts.values()):.0%}")
    if setup.device == "cuda":
        compared.notes.append(f"in kernels {_kernel_share(trainer, setup.now):.0%} of the time")
    return compared


def spread_batches(pairs: Dataset, size: int, steps: int) -> Dataset:
    """Choose batches of pairs of like length, as a training does: from the shortest to the longest pairs."""
    rows = sorted(pairs, key=lambda pair: len(pair["translation"]))
    last = len(rows) - size
    starts = [round(last * step / (steps - 1)) for step in range(steps)]
    return Dataset.from_list([row for start in starts for row in rows[start : start + size]])


class _Bracket(TrainerCallback):
    def __init__(self, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        self.begin, self.end = begin, end

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            self.begin()
        elif state.global_step == state.max_steps:
            self.end()


def train_between(trainer: Trainer, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
    """Train, and call `begin` after the first step, which is slower than the others, and `end` after the last."""
    bracket = _Bracket(begin, end)
    trainer.add_callback(bracket)
    trainer.train()
    trainer.remove_callback(bracket)


class StepSeconds:
    """A clock that runs in the steps of trainings only, and counts the seconds of an average one.

    Args:
        now (`Callable`): the clock it reads.
        steps (`int`): steps a training, without the first.
    """

    def __init__(self, now: Now, steps: int) -> None:
        self.now, self.steps, self.total = now, steps, 0.0

    def train(self, trainer: Trainer) -> None:
        """Train, and count."""
        times: list[float] = []
        train_between(trainer, lambda: times.append(self.now()), lambda: times.append(self.now()))
        self.total += (times[1] - times[0]) / self.steps


def step_parts(trainer: OpticalDistillationTrainer, now: Now) -> dict[str, float]:
    """Measure which shares of a step the student's forward and backward pass and the optimizer take.

    The backward pass is the student's from where the gradient of the loss has come to its vectors.
    """
    spent = dict.fromkeys(("forward", "backward", "optimizer"), 0.0)
    began: dict[str, float] = {}
    times: list[float] = []

    def start(part: str) -> None:
        began[part] = now()

    def stop(part: str) -> None:
        spent[part] += now() - began[part]

    def leave_forward(model: Any, inputs: Any, output: OpticalOutput) -> None:
        stop("forward")
        for vectors in (output.token_vectors, output.pooled):
            vectors.register_hook(lambda gradient: start("backward"))  # the later of the two counts

    def begin() -> None:
        spent.update(dict.fromkeys(spent, 0.0))
        times.append(now())

    class Optimizer(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            start("optimizer")

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            stop("optimizer")

    backward = trainer.accelerator.backward

    def timed_backward(loss: torch.Tensor, **kwargs: Any) -> None:
        backward(loss, **kwargs)
        stop("backward")

    trainer.accelerator.backward = timed_backward
    trainer.add_callback(Optimizer)
    with (
        trainer.model.register_forward_pre_hook(lambda model, inputs: start("forward")),
        trainer.model.register_forward_hook(leave_forward),
    ):
        train_between(trainer, begin, lambda: times.append(now()))
    trainer.remove_callback(Optimizer)
    trainer.accelerator.backward = backward
    return {part: seconds / (times[1] - times[0]) for part, seconds in spent.items()}


def _kernel_share(trainer: Trainer, now: Now) -> float:
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    times: list[float] = []

    def begin() -> None:
        profile.start()
        times.append(now())

    def end() -> None:
        times.append(now())
        profile.stop()

    train_between(trainer, begin, end)
    kernels = [
        event.self_device_time_total
        for event in profile.key_averages()
        if event.device_type.name == "CUDA" and not event.is_user_annotation and not event.key.startswith("Mem")
    ]
    return sum(kernels) / 1e6 / (times[1] - times[0])


def _peer_trainer(setup: Setup, rows: Dataset, labels: torch.Tensor, common: dict[str, Any]) -> Trainer:
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import MSELoss

    student, folder = OpticalStudent.from_checkpoint(setup.checkpoint), setup.folder / "single-vector"
    export_single_vector(student, folder)
    model = SentenceTransformer(str(folder), device=setup.device)
    model.max_seq_length = student.config.query_length
    for module in model.modules():  # as ours
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.Embedding):
            module.requires_grad_(False)

    def in_order(dataset: Dataset, **options: Any) -> DefaultBatchSampler:
        return DefaultBatchSampler(SequentialSampler(dataset), **options)

    prompt = student.config.query_prefix
    args = SentenceTransformerTrainingArguments(**common, prompts=prompt, batch_sampler=in_order)
    dataset = Dataset.from_dict({"sentence": rows["translation"][:], "label": labels.tolist()})
    trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=dataset, loss=MSELoss(model))
    trainer.remove_callback(PrinterCallback)
    return trainer
