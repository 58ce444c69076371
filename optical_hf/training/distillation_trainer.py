"""The trainer: a frozen teacher beside the student, a loss between the two, and evaluation by retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers.trainer_utils import EvalLoopOutput

from ..data.bitext_augmentation import with_concatenation, with_mark_dropout, with_retention
from ..data.retrieval_set import RetrievalSet
from ..evaluation.in_memory import translation_accuracy
from ..losses.alignment import Loss
from ..models.modeling_optical import OpticalOutput, OpticalStudent, OpticalTeacher
from ..retrieval.index.build import model_fingerprint
from .distillation_args import OpticalTrainingArguments
from .distillation_collator import DistillationCollator, padded_lengths
from .freezing import warn_of_added_tokens
from .hybrid_batches import HybridSampler
from .named_losses import make_loss
from .optical_trainer import OpticalTrainer
from .resuming import dataset_digest
from .teacher_outputs import TeacherOutputs

_COLUMNS = ["language", "english", "translation"]


class OpticalDistillationTrainer(OpticalTrainer):
    """Distil a teacher into a student by bitext, on [`~transformers.Trainer`] (OPTICAL, arXiv 2301.12566).

    Args:
        student ([`OpticalStudent`]):
            The model that is trained.
        teacher ([`OpticalTeacher`]):
            The model it learns from. It belongs to the trainer, not to the student: it is in no checkpoint, and it
            gets no gradient.
        args ([`OpticalTrainingArguments`]):
            The arguments.
        train_dataset (`Dataset` or `IterableDataset`):
            Bitext, with the columns of [`load_bitext`].
        eval_dataset (`Dataset`, *optional*):
            Held-out bitext, for the loss and for translation retrieval.
        retrieval_sets (`Iterable[RetrievalSet]`, *optional*):
            Searched at every evaluation, with the student's queries and the teacher's passages, which stay in memory.
        loss (`str` or callable, *optional*, defaults to `"ot"`):
            `"ot"`, `"greedy"`, `"mse"`, or a callable that takes the teacher's and the student's [`OpticalOutput`]
            and returns the loss, `(batch,)` or a scalar, and a dict of numbers to log.
        languages (`Sequence[str]`, *optional*):
            The languages of `train_dataset`; needed for a stream only.
        kwargs:
            Passed to [`~transformers.Trainer`].

    Evaluation gives `eval_loss`, `eval_translation_accuracy` (and one a language), and, with retrieval sets,
    `eval_<name>_ndcg@10`, `eval_<name>_pooled_ndcg@10` and their means `eval_ndcg@10` and `eval_pooled_ndcg@10`: each
    may be the `metric_for_best_model`.

    Raises:
        ValueError: on an unknown loss, vectors of different size, a language that is missing, or arguments or held-out
            bitext of another class.
        FloatingPointError: in training, if the loss or a vector is not finite; names the step and the pairs.

    Example:

    ```python
    >>> teacher = OpticalTeacher.from_checkpoint("intfloat/multilingual-e5-small", query_prefix="query: ")
    >>> student = OpticalStudent.from_checkpoint("intfloat/multilingual-e5-small", query_prefix="query: ")
    >>> bitext = load_bitext({"sw": "bitext.en-sw.tsv"})
    >>> trainer = OpticalDistillationTrainer(student, teacher, OpticalTrainingArguments("out"), bitext.dataset)
    >>> trainer.train()
    ```
    """

    args: OpticalTrainingArguments
    data_collator: DistillationCollator

    def __init__(
        self,
        student: OpticalStudent,
        teacher: OpticalTeacher,
        args: OpticalTrainingArguments,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | None = None,
        *,
        retrieval_sets: Iterable[RetrievalSet] = (),
        loss: str | Loss = "ot",
        languages: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, OpticalTrainingArguments):
            raise ValueError(f"`args` has to be OpticalTrainingArguments, not {type(args).__name__}.")
        if eval_dataset is not None and not isinstance(eval_dataset, Dataset):
            raise ValueError(
                f"`eval_dataset` is a {type(eval_dataset).__name__}; give one Dataset of all languages, such as "
                "`datasets.concatenate_datasets` makes: they are measured one by one all the same."
            )
        if isinstance(loss, str) and teacher.config.output_dim != student.config.output_dim:
            raise ValueError(
                f"The teacher's vectors have {teacher.config.output_dim} dimensions, the student's "
                f"{student.config.output_dim}: give the student a projection, with `projection_dim="
                f"{teacher.config.output_dim}` in OpticalStudent.from_checkpoint, or --projection_dim."
            )
        if args.alpha is not None and isinstance(train_dataset, IterableDataset):
            raise ValueError("`alpha` needs all pairs in memory: leave it out for a stream.")
        self.languages = _languages(train_dataset, eval_dataset, languages)
        self._bitext = None if train_dataset is None else dataset_digest(train_dataset, _COLUMNS)
        self._loss = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        self.teacher = teacher.requires_grad_(False).eval()
        self.roles = list(args.roles)
        if train_dataset is not None:
            train_dataset = with_concatenation(train_dataset, args.concatenation, args.seed)
            train_dataset = with_mark_dropout(train_dataset, args.mark_dropout, args.seed)
            train_dataset = with_retention(train_dataset, args.retention_share, args.seed)
            if isinstance(train_dataset, Dataset):
                lengths = padded_lengths(teacher, student, train_dataset, self.roles)
                train_dataset = train_dataset.add_column(args.length_column_name, lengths)
        if args.freeze_embeddings and train_dataset is not None:
            warn_of_added_tokens(student, train_dataset)
        kwargs.setdefault("data_collator", DistillationCollator(teacher, student, self.languages, self.roles))
        super().__init__(
            student,
            args,
            train_dataset,
            eval_dataset=eval_dataset,
            retrieval_sets=retrieval_sets,
            passage_model=self.teacher,
            **kwargs,
        )
        self._place_teacher()
        # Stage 3 of DeepSpeed computes with weights of all processes, which may not have seen the same texts.
        engine = self._teacher_engine is not None
        self.teacher_outputs = TeacherOutputs(self.teacher, 0.0 if engine else args.teacher_memory)
        self.loss_function = make_loss(loss, args, teacher, self.train_dataset) if isinstance(loss, str) else loss

    def _place_teacher(self) -> None:
        self._teacher_engine = None
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            import deepspeed  # its stage 3 has split the teacher's weights on loading; its engine joins them for use

            config = dict(self.accelerator.state.deepspeed_plugin.deepspeed_config)
            self._teacher_engine = deepspeed.initialize(model=self.teacher, config=config)[0]
        else:  # a whole copy in every process: what has no gradient needs no wrapper
            self.teacher.to(self.args.device)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.alpha is None or dataset is None:
            return super()._get_train_sampler(train_dataset)
        pairs = [("en", language) for language in dataset["language"][:]]
        return HybridSampler(pairs, self.args.train_batch_size * self.args.world_size, self.args.alpha, self)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["english", "translation", "language"]  # type: ignore[assignment]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of a batch of [`DistillationCollator`], with the student's output if asked.

        With `num_items_in_batch`, it is the batch's part in the mean over so many pairs of all processes.
        """
        sides = {
            side: {name: inputs[f"{side}_{name}"] for name in ("input_ids", "attention_mask", "scoring_mask")}
            for side in ("teacher", "student")
        }
        with torch.no_grad(), self.accelerator.autocast():
            keys = inputs.get("teacher_keys")  # a collator of the user's own need not make them
            teacher = (
                self.teacher(**sides["teacher"]) if keys is None else self.teacher_outputs(keys, sides["teacher"])
            )
        student: OpticalOutput = model(**sides["student"])
        self._check_finite("the teacher's vectors are", teacher.token_vectors, inputs)
        self._check_finite("the student's vectors are", student.token_vectors, inputs)
        losses, numbers = self.loss_function(teacher, student)
        self._check_finite("the loss is", losses, inputs)
        languages = inputs["language_ids"]
        if losses.ndim == 0:
            loss = losses
        else:
            english = languages == self.languages.index("en")
            loss = (losses * torch.where(english, self.args.retention_weight, 1.0)).mean()
        if num_items_in_batch is not None:  # the processes' gradients are averaged, hence their number
            loss = loss * (len(languages) * self.accelerator.num_processes / num_items_in_batch)
        if model.training:
            self._numbers.add(numbers)
            self._numbers.add_spread(student)
            if losses.ndim:
                self._numbers.add_by_language(losses.detach(), languages, self.languages)
        return (loss, student) if return_outputs else loss

    def _check_finite(self, what: str, values: Tensor, inputs: dict[str, Any]) -> None:
        step, pairs = self.state.global_step + 1, len(inputs["language_ids"])

        def describe(bad: list[int]) -> str:
            rows = bad if values.ndim else range(pairs)
            tokenizer = self.data_collator.student.tokenizer
            texts = [
                f"{self.languages[inputs['language_ids'][row]]}: "
                f"{tokenizer.decode(inputs['student_input_ids'][row], skip_special_tokens=True)!r}"
                for row in rows
            ]
            more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
            return (
                f"Step {step}: {what} not finite, for {'; '.join(texts[:5])}{more}. Training stopped. If the weights "
                "are sound, lower the learning rate, or train in float32 or bf16 instead of fp16."
            )

        self.finite_checks.add(values, pairs if values.ndim else 1, describe)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Add translation retrieval to the loss of the held-out bitext and the retrieval sets."""
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        accuracy = translation_accuracy(
            self.model, self.teacher, dataloader.dataset, self.roles[0], self.args.eval_batch_size
        )
        assert output.metrics is not None
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in accuracy.items()})
        return output

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`dict`: what decides on the trained weights, by which a checkpoint is known to be of this training."""
        made_of = {"loss": self._loss, "bitext": self._bitext, "teacher": model_fingerprint(self.teacher)["weights"]}
        return made_of | super().settings


def _languages(train: Any, held_out: Any, given: Sequence[str] | None) -> list[str]:
    found = set(given or ()) | {"en"}
    for dataset in (train, held_out):
        if isinstance(dataset, Dataset):
            found |= set(dataset["language"][:])
        elif dataset is not None and not given:
            raise ValueError("`languages` is needed for a stream: the languages of its pairs, such as ['sw', 'yo'].")
    return sorted(found)
