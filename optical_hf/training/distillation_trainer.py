"""The trainer: a frozen teacher beside the student, a loss between the two, and evaluation by retrieval."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from huggingface_hub import CommitInfo, HfApi
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, TrainOutput
from transformers.utils import PushInProgress

from ..data.bitext_augmentation import with_concatenation, with_mark_dropout, with_retention
from ..data.retrieval_set import RetrievalSet
from ..evaluation.in_memory import encode_passages, evaluate_queries, translation_accuracy
from ..hub.push import make_repository, push_student
from ..launching import check_writable
from ..losses.alignment import Loss
from ..models.modeling_optical import OpticalModel, OpticalOutput, OpticalStudent, OpticalTeacher
from ..retrieval.index.build import model_fingerprint
from .distillation_args import OpticalTrainingArguments
from .distillation_collator import DistillationCollator
from .epoch_sampler import EpochSampler
from .freezing import freeze, set_dropout
from .hub_pushes import push_checkpoint
from .logged_numbers import LoggedNumbers
from .named_losses import make_loss
from .resuming import bitext_digest, checkpoint_to_resume, is_whole, remove_surplus, seconds_until, write_settings

logger = logging.getLogger(__name__)

# Of the redeclared arguments, those that decide on nothing, or, as the number of epochs, may grow.
_IDLE = ("passage_cache", "per_device_eval_batch_size", "logging_steps", "save_total_limit", "num_train_epochs")
_DECISIVE = (
    *(name for name in OpticalTrainingArguments.__annotations__ if name not in _IDLE),
    *("seed", "data_seed", "gradient_accumulation_steps", "lr_scheduler_type", "lr_scheduler_kwargs", "optim"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "dataloader_drop_last"),
)


class OpticalDistillationTrainer(Trainer):
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
        ValueError: on an unknown loss, vectors of different size, a language that is missing, or arguments of another
            class.
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
    model: OpticalModel
    hub_model_id: Any
    push_in_progress: Any
    data_collator: DistillationCollator
    train_dataset: Dataset | IterableDataset | None
    seconds_before: float
    """`float`: how long the training that is gone on with had taken by its checkpoint."""

    loss_is_scaled_for_ga = True  # by `get_batch_samples`, which counts the pairs of a whole step

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
        if isinstance(loss, str) and teacher.config.output_dim != student.config.output_dim:
            raise ValueError(
                f"The teacher's vectors have {teacher.config.output_dim} dimensions, the student's "
                f"{student.config.output_dim}: give the student a projection, with `projection_dim="
                f"{teacher.config.output_dim}` in OpticalStudent.from_checkpoint, or --projection_dim."
            )
        if args.should_save:
            check_writable(args.output_dir or "", 0)
        self.languages = _languages(train_dataset, eval_dataset, languages)
        self._bitext = None if train_dataset is None else bitext_digest(train_dataset)
        self._loss = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        self.teacher = teacher.requires_grad_(False).eval()
        self.roles = list(args.roles)
        if train_dataset is not None:
            train_dataset = with_concatenation(train_dataset, args.concatenation, args.seed)
            train_dataset = with_mark_dropout(train_dataset, args.mark_dropout, args.seed)
            train_dataset = with_retention(train_dataset, args.retention_share, args.seed)
            if isinstance(train_dataset, Dataset):
                lengths = [len(text) for text in train_dataset["translation"][:]]
                train_dataset = train_dataset.add_column(args.length_column_name, lengths)
        freeze(student, args.freeze_embeddings, args.freeze_layers)
        set_dropout(student, args.dropout)
        loading: Any = args.accelerator_config
        if loading.dispatch_batches is None:  # for a stream it would join the processes' batches, unlike in length
            loading.dispatch_batches = False
        kwargs.setdefault("data_collator", DistillationCollator(teacher, student, self.languages, self.roles))
        super().__init__(student, args, train_dataset=train_dataset, eval_dataset=eval_dataset, **kwargs)
        self.model_accepts_loss_kwargs = True  # what `loss_is_scaled_for_ga` says, before transformers 5.19
        self._place_teacher()
        if isinstance(loss, str):
            loss = make_loss(loss, args, self.teacher, self.train_dataset)
        self.loss_function = loss
        self.retrieval_sets = list(retrieval_sets)
        self._encoded: list[tuple[dict[str, str], tuple[list[Tensor], Tensor]]] = []  # passages and their vectors
        self._numbers = LoggedNumbers()
        self._started, self.seconds_before = time.time(), 0.0

    def _place_teacher(self) -> None:
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            import deepspeed  # its stage 3 has split the teacher's weights on loading; its engine joins them for use

            config = dict(self.accelerator.state.deepspeed_plugin.deepspeed_config)
            self._teacher_engine = deepspeed.initialize(model=self.teacher, config=config)[0]
        else:  # a whole copy in every process: what has no gradient needs no wrapper
            self.teacher.to(self.args.device)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        sampler = super()._get_train_sampler(train_dataset)
        return EpochSampler(sampler, self) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> None:
        return None  # as they come; grouped by length, the Trainer would look for `input_ids`

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["english", "translation", "language"]  # type: ignore[assignment]

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """Return the batches of a step, and the number of pairs in them, those of other processes included.

        The loss of a step is its mean over pairs, into whatever batches accumulation and processes cut it.
        """
        if self.state.global_step >= self.state.max_steps:  # resumed where there is nothing left to train
            self.control.should_training_stop = True
            return [], None
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        pairs = torch.tensor(sum(len(batch["language_ids"]) for batch in batches), device=device)
        return batches, self.accelerator.gather(pairs).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
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
            teacher: OpticalOutput = self.teacher(**sides["teacher"])
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

    def _check_finite(self, what: str, values: Tensor, inputs: dict[str, Tensor]) -> None:
        bad = ~values.detach().isfinite().reshape(len(inputs["language_ids"]) if values.ndim else 1, -1).all(1)
        if not bad.any():
            return
        rows = bad.nonzero()[:, 0].tolist() if values.ndim else range(len(inputs["language_ids"]))
        tokenizer = self.data_collator.student.tokenizer
        texts = [
            f"{self.languages[inputs['language_ids'][row]]}: "
            f"{tokenizer.decode(inputs['student_input_ids'][row], skip_special_tokens=True)!r}"
            for row in rows
        ]
        more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
        raise FloatingPointError(
            f"Step {self.state.global_step + 1}: {what} not finite, for {'; '.join(texts[:5])}{more}. Training "
            "stopped. If the weights are sound, lower the learning rate, or train in float32 or bf16 instead of fp16."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as [`~transformers.Trainer`] does, with the numbers of the loss, averaged since the last log."""
        if "loss" in logs:
            logs |= self._numbers.take()
        super().log(logs, start_time)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None, None]:
        """Return the loss of a batch of held-out bitext."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return self.compute_loss(model, inputs).detach(), None, None

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Add translation retrieval and the retrieval sets to the loss of the held-out bitext."""
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        batch_size = self.args.eval_batch_size
        found = translation_accuracy(self.model, self.teacher, dataloader.dataset, self.roles[0], batch_size)
        measured: list[dict[str, float]] = []
        for one in self.retrieval_sets:
            measured.append(self.evaluate_retrieval(one))
            found |= {f"{one.name}_{name}": value for name, value in measured[-1].items()}
        for name in measured[0] if measured else ():
            found[name] = sum(numbers[name] for numbers in measured) / len(measured)
        assert output.metrics is not None
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        return output

    def evaluate_retrieval(self, retrieval_set: RetrievalSet, model: OpticalModel | None = None) -> dict[str, float]:
        """Search a retrieval set with the queries of a model and the passages of the teacher.

        Args:
            retrieval_set ([`RetrievalSet`]): sets that share one dict of passages have it encoded once.
            model ([`OpticalTeacher`] or [`OpticalStudent`], *optional*): encodes the queries; the student by default.

        Returns:
            `dict[str, float]`: `ndcg@10` of MaxSim and `pooled_ndcg@10`.
        """
        batch_size, passages = self.args.eval_batch_size, retrieval_set.passages
        vectors = next((vectors for encoded, vectors in self._encoded if encoded is passages), None)
        if vectors is None:
            vectors = encode_passages(self.teacher, passages, batch_size, self.args.passage_cache)
            self._encoded.append((passages, vectors))
        return evaluate_queries(model or self.model, retrieval_set, vectors, batch_size)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train as [`~transformers.Trainer`] does, once it is sure that the output folder can take the checkpoints.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                A checkpoint's folder; or `True`, `"true"` or `"last"` for the newest whole one in the output folder.
            trial, ignore_keys_for_eval:
                Passed to [`~transformers.Trainer.train`].

        Raises:
            ValueError: if there is no such checkpoint, it is not whole, it is of a training with other settings,
                bitext or teacher, or there is too little bitext for one batch.
            OSError: if the output folder cannot be written or has no room.
        """
        self._check_batches()
        if self.args.should_save:
            kept = (self.args.save_total_limit or 1) + 1  # the new one is written before an old one goes
            weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
            trained = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
            per_checkpoint = 0 if self.args.save_strategy == "no" else weights + 2 * trained  # and Adam's two moments
            check_writable(str(self.args.output_dir), weights + kept * per_checkpoint)
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, str(self.args.output_dir), self.settings)
        self._started, self.seconds_before = time.time(), seconds_until(checkpoint) if checkpoint else 0.0
        if checkpoint and self.args.should_save:
            remove_surplus(checkpoint, str(self.args.output_dir), self.args.save_total_limit)
        return super().train(checkpoint, trial, ignore_keys_for_eval)

    def _check_batches(self) -> None:
        args, dataset = self.args, self.train_dataset
        if isinstance(dataset, Dataset) and args.dataloader_drop_last:
            needed = args.train_batch_size * args.world_size
            if len(dataset) < needed:
                raise ValueError(
                    f"There are {len(dataset)} pairs, and a batch takes {needed}: with `dataloader_drop_last` nothing "
                    "would be trained. Leave it out, or make `per_device_train_batch_size` smaller."
                )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`dict`: what decides on the trained weights, by which a checkpoint is known to be of this training."""
        return {
            "loss": self._loss,
            "bitext": self._bitext,
            "teacher": model_fingerprint(self.teacher)["weights"],
            "processes": self.args.world_size,
            "mixed_precision": self.accelerator.mixed_precision,
            **{name: getattr(self.args, name) for name in _DECISIVE},
        }

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or str(self.args.output_dir))
        # A pickle that holds paths and names of this machine, which nothing reads back.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR) and self.args.should_save:
            write_settings(folder, self.settings, self.seconds_before + time.time() - self._started)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:  # one of an earlier training is not whole from now on, until all of it is anew
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            if self.args.should_save and not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
            # A full disk: torch and safetensors say it in words of their own.
            raise OSError(
                f"Step {self.state.global_step}: the checkpoint could not be written to {self.args.output_dir} "
                f"({error}). Make room, and go on with --resume_from_checkpoint true from the one before it."
            ) from error

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository on the Hub if it is not there."""
        if self.is_world_process_zero():
            args = self.args
            private = args.hub_private_repo if private is None else private
            repo_id = args.hub_model_id or Path(args.output_dir or "").absolute().name
            self.hub_model_id = make_repository(repo_id, private=private, token=token or args.hub_token)
            self.push_in_progress = None

    def push_to_hub(  # type: ignore[override]  # no options for a card drafted by the Trainer
        self, commit_message: str = "End of training", **options: Any
    ) -> Any:
        """Save the student, and push it with the card and the results that lie beside it.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`):
                The message of the commit.
            options:
                `blocking=False` returns a `Future`; `token`, `revision` and `private` replace those of the arguments.

        Raises:
            PushError, ValueError, FileNotFoundError: as [`push_student`].
        """
        if self.hub_model_id is None:
            self.init_hf_repo(options.get("token"), options.get("private"))
        self.save_model(_internal_call=True)
        return self.push_output(commit_message, **options) if self.is_world_process_zero() else None

    def push_output(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | Future[CommitInfo]:
        """Push the output folder as it is, once the push of the last checkpoint is through; options as above."""
        args = self.args
        self._finish_current_push()
        self.callback_handler.on_push_begin(args, self.state, self.control)
        assert args.output_dir is not None and self.hub_model_id is not None
        push = partial(
            push_student,
            args.output_dir,
            self.hub_model_id,
            private=args.hub_private_repo if private is None else private,
            revision=revision or args.hub_revision,
            token=token or args.hub_token,
            commit_message=commit_message,
        )
        return push() if blocking else HfApi().run_as_future(push)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As in [`~transformers.Trainer`], pass over a checkpoint while the last is being pushed, by default."""
        if not self.is_world_process_zero() or self.args.hub_strategy == "end":
            return
        if self.push_in_progress is not None and not self.push_in_progress.is_done():
            if not self.args.hub_always_push:
                return
            self._finish_current_push()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        pushing: Any = [push_checkpoint(checkpoint_folder, self.hub_model_id, self.args, message)]
        self.push_in_progress = PushInProgress(pushing)


def _languages(train: Any, held_out: Any, given: Sequence[str] | None) -> list[str]:
    found = set(given or ()) | {"en"}
    for dataset in (train, held_out):
        if isinstance(dataset, Dataset):
            found |= set(dataset["language"][:])
        elif dataset is not None and not given:
            raise ValueError("`languages` is needed for a stream: the languages of its pairs, such as ['sw', 'yo'].")
    return sorted(found)
