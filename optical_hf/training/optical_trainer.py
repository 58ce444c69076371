"""What the two trainers share: searching, resuming, saving, logging and pushing."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
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

from ..data.retrieval_set import RetrievalSet
from ..evaluation.in_memory import encode_passages, evaluate_queries
from ..hub.push import make_repository, push_student
from ..launching import check_writable
from ..models.modeling_optical import OpticalModel
from .epoch_sampler import EpochSampler
from .finite_checks import FiniteChecks
from .freezing import freeze, set_dropout
from .hub_pushes import push_checkpoint
from .logged_numbers import LoggedNumbers
from .optical_args import OpticalArguments
from .resuming import checkpoint_to_resume, complete_settings, is_whole, remove_surplus, seconds_until, write_settings

logger = logging.getLogger(__name__)


class OpticalTrainer(Trainer):
    """A [`~transformers.Trainer`] of a retriever, which is evaluated by searching; use one of its two children.

    Args:
        model ([`OpticalTeacher`] or [`OpticalStudent`]):
            The model that is trained.
        args ([`OpticalArguments`]):
            The arguments.
        train_dataset (`Dataset` or `IterableDataset`, *optional*):
            What it is trained on.
        retrieval_sets (`Iterable[RetrievalSet]`, *optional*):
            Searched at every evaluation.
        passage_model ([`OpticalTeacher`] or [`OpticalStudent`], *optional*):
            Encodes their passages, once; it does not change. By default the model that is trained, each time anew.
        kwargs:
            Passed to [`~transformers.Trainer`].
    """

    args: OpticalArguments
    model: OpticalModel
    hub_model_id: Any
    push_in_progress: Any
    train_dataset: Dataset | IterableDataset | None
    seconds_before: float
    """`float`: how long the training that is gone on with had taken by its checkpoint."""

    loss_is_scaled_for_ga = True  # by `get_batch_samples`, which counts the rows of a whole step

    def __init__(
        self,
        model: OpticalModel,
        args: OpticalArguments,
        train_dataset: Dataset | IterableDataset | None = None,
        *,
        retrieval_sets: Iterable[RetrievalSet] = (),
        passage_model: OpticalModel | None = None,
        **kwargs: Any,
    ) -> None:
        if args.should_save:
            check_writable(args.output_dir or "", 0)
        freeze(model, args.freeze_embeddings, args.freeze_layers)
        set_dropout(model, args.dropout)
        loading: Any = args.accelerator_config
        if loading.dispatch_batches is None:  # for a stream it would join the processes' batches, unlike in length
            loading.dispatch_batches = False
        super().__init__(model, args, train_dataset=train_dataset, **kwargs)
        self.model_accepts_loss_kwargs = True  # what `loss_is_scaled_for_ga` says, before transformers 5.19
        self.retrieval_sets = list(retrieval_sets)
        self.passage_model = passage_model
        self._encoded: list[tuple[dict[str, str], tuple[list[Tensor], Tensor]]] = []  # passages and their vectors
        self._numbers = LoggedNumbers()
        self.finite_checks = FiniteChecks()
        self._started, self.seconds_before = time.time(), 0.0

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`dict`: what decides on the trained weights, by which a checkpoint is known to be of this training."""
        return {
            "processes": self.args.world_size,
            "mixed_precision": self.accelerator.mixed_precision,
            **{name: getattr(self.args, name) for name in self.args.decisive()},
        }

    def search_all(self) -> dict[str, float]:
        """Search every retrieval set: `<name>_ndcg@10` and `<name>_pooled_ndcg@10`, and the means of both."""
        found: dict[str, float] = {}
        measured = [self.evaluate_retrieval(each) for each in self.retrieval_sets]
        for each, numbers in zip(self.retrieval_sets, measured, strict=True):
            found |= {f"{each.name}_{name}": value for name, value in numbers.items()}
        for name in measured[0] if measured else ():
            found[name] = sum(numbers[name] for numbers in measured) / len(measured)
        return found

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        sampler = super()._get_train_sampler(train_dataset)
        return EpochSampler(sampler, self) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> None:
        return None  # as they come; grouped by length, the Trainer would look for `input_ids`

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """Return the batches of a step, and the number of rows in them, those of other processes included.

        The loss of a step is its mean over rows, into whatever batches accumulation and processes cut it.
        """
        if self.state.global_step >= self.state.max_steps:  # resumed where there is nothing left to train
            self.control.should_training_stop = True
            return [], None
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = torch.full((), sum(len(batch["language_ids"]) for batch in batches), device=device)
        return batches, self.accelerator.gather(rows).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as [`~transformers.Trainer`] does, with the numbers of the loss, averaged since the last log."""
        self.finite_checks.check()
        if "loss" in logs:
            logs |= self._numbers.take()
        super().log(logs, start_time)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None, None]:
        """Return the loss of a batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss: Any = self.compute_loss(model, inputs)
            return loss.detach(), None, None

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Add the retrieval sets to the loss."""
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        assert output.metrics is not None
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in self.search_all().items()})
        return output

    def evaluate_retrieval(self, retrieval_set: RetrievalSet, model: OpticalModel | None = None) -> dict[str, float]:
        """Search a retrieval set with the queries of a model, and its passages or those of `passage_model`.

        Args:
            retrieval_set ([`RetrievalSet`]): where there is a `passage_model`, sets that share one dict of
                passages have it encoded once.
            model ([`OpticalTeacher`] or [`OpticalStudent`], *optional*): by default the one that is trained.

        Returns:
            `dict[str, float]`: `ndcg@10` of MaxSim and `pooled_ndcg@10`.
        """
        model, batch_size, passages = model or self.model, self.args.eval_batch_size, retrieval_set.passages
        if self.passage_model is None:
            vectors = encode_passages(model, passages, batch_size)
            return evaluate_queries(model, retrieval_set, vectors, batch_size)
        kept = next((vectors for encoded, vectors in self._encoded if encoded is passages), None)
        if kept is None:
            kept = encode_passages(self.passage_model, passages, batch_size, self.args.passage_cache)
            self._encoded.append((passages, kept))
        return evaluate_queries(model, retrieval_set, kept, batch_size)

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
            ValueError: if there is no such checkpoint, it is not whole, it is of a training with other settings
                or data, or there is too little data for one batch.
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
            if Path(checkpoint).resolve().parent == Path(str(self.args.output_dir)).resolve():
                complete_settings(checkpoint)
            remove_surplus(checkpoint, str(self.args.output_dir), self.args.save_total_limit)
        return super().train(checkpoint, trial, ignore_keys_for_eval)

    def _check_batches(self) -> None:
        args, dataset = self.args, self.train_dataset
        if isinstance(dataset, Dataset) and args.dataloader_drop_last:
            needed = args.train_batch_size * args.world_size
            if len(dataset) < needed:
                raise ValueError(
                    f"There are {len(dataset)} rows, and a batch takes {needed}: with `dataloader_drop_last` nothing "
                    "would be trained. Leave it out, or make `per_device_train_batch_size` smaller."
                )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or str(self.args.output_dir))
        # A pickle that holds paths and names of this machine, which nothing reads back.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR) and self.args.should_save:
            write_settings(folder, self.settings, self._seconds())

    def _seconds(self) -> float:
        return self.seconds_before + time.time() - self._started

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.finite_checks.check()
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save and folder.is_dir():  # of an earlier training: none of its files may stay
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)  # first, since a kill may leave the others
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()  # before any process writes there
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
            if self.args.should_save:
                write_settings(folder, self.settings, self._seconds(), whole=True)
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
        """Save the model, and push it with the card and the results that lie beside it.

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
