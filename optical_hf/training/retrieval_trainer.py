"""The trainer of a retriever on queries with passages that answer them, and others that do not."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Sampler

from ..data.retrieval_set import RetrievalSet
from ..files import read_json, write_json
from ..losses.ranking import info_nce, margin_mse, maxsim_means, score_divergence
from ..models.modeling_optical import OpticalModel, OpticalOutput, OpticalStudent, OpticalTeacher
from ..retrieval.index.build import model_fingerprint
from .hybrid_batches import HybridSampler
from .optical_trainer import OpticalTrainer
from .resuming import dataset_digest
from .retrieval_args import OpticalRetrievalArguments
from .retrieval_collator import RetrievalCollator

TEMPERATURES = "optical_temperatures.json"
COLUMNS = ["query", "query_language", "document_language", "passages", "docids", "scores", "positives"]
_INPUTS = ("input_ids", "attention_mask", "scoring_mask")


class OpticalRetrievalTrainer(OpticalTrainer):
    """Train a retriever on rows of a query, a passage that answers it and others that do not.

    It makes an English teacher of a plain encoder, and fine-tunes students. Every query is contrasted with all
    passages of the batch, those of other processes too, but for passages that are known to answer it.

    Args:
        model ([`OpticalStudent`]):
            The model that is trained. It encodes queries and passages.
        args ([`OpticalRetrievalArguments`]):
            The arguments.
        train_dataset (`Dataset` or `IterableDataset`, *optional*):
            Rows, with the columns of [`load_training_rows`].
        eval_dataset (`Dataset`, *optional*):
            Rows for the loss of an evaluation.
        retrieval_sets (`Iterable[RetrievalSet]`, *optional*):
            Searched at every evaluation.
        document_model ([`OpticalTeacher`] or [`OpticalStudent`], *optional*):
            Encodes the passages instead, and does not change: an index made with it serves the model that is trained.
        languages (`Sequence[str]`, *optional*):
            The languages of the queries; needed for a stream only.
        kwargs:
            Passed to [`~transformers.Trainer`].

    Raises:
        ValueError: on arguments of another class, vectors of different size, teacher scores that are asked for and
            not there, or batches that cannot be made (see [`HybridSampler`]).
        FloatingPointError: in training, if the loss is not finite.

    Example:

    ```python
    >>> model = OpticalStudent.from_checkpoint("intfloat/multilingual-e5-small", query_prefix="query: ")
    >>> rows = load_training_rows({"sw": "rows.sw.jsonl"})
    >>> trainer = OpticalRetrievalTrainer(model, OpticalRetrievalArguments("out"), rows.dataset)
    >>> trainer.train()
    ```
    """

    args: OpticalRetrievalArguments
    data_collator: RetrievalCollator

    def __init__(
        self,
        model: OpticalStudent,
        args: OpticalRetrievalArguments,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | None = None,
        *,
        retrieval_sets: Iterable[RetrievalSet] = (),
        document_model: OpticalModel | None = None,
        languages: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, OpticalRetrievalArguments):
            raise ValueError(f"`args` has to be OpticalRetrievalArguments, not {type(args).__name__}.")
        if isinstance(model, OpticalTeacher):
            raise ValueError("`model` is an OpticalTeacher, which is frozen: load the same folder as OpticalStudent.")
        if document_model is not None and document_model.config.output_dim != model.config.output_dim:
            raise ValueError(
                f"The model's vectors have {model.config.output_dim} dimensions, the document model's "
                f"{document_model.config.output_dim}."
            )
        if eval_dataset is not None and not isinstance(eval_dataset, Dataset):
            raise ValueError(
                f"`eval_dataset` is a {type(eval_dataset).__name__}; give one Dataset of all languages, such as "
                "`datasets.concatenate_datasets` makes."
            )
        if isinstance(train_dataset, IterableDataset) and args.alpha is not None:
            raise ValueError("`alpha` needs all rows in memory: leave it out for a stream.")
        if (args.divergence_weight or args.margin_weight) and isinstance(train_dataset, Dataset):
            if not any(train_dataset["scores"][:]):
                raise ValueError(
                    "`divergence_weight` and `margin_weight` need the scores of a teacher, and no row has them: mine "
                    "the negatives with a model, or leave both at 0."
                )
        self._rows = None if train_dataset is None else dataset_digest(train_dataset, COLUMNS)
        self.document_model = None if document_model is None else document_model.requires_grad_(False).eval()
        self.start = copy.deepcopy(model).requires_grad_(False).eval() if args.retention_weight else None
        collator = RetrievalCollator(
            model, document_model or model, _languages(train_dataset, eval_dataset, languages), args.negatives
        )
        kwargs.setdefault("data_collator", collator)
        searched = list(retrieval_sets)
        # The Trainer wants a dataset where evaluations are asked for, and `evaluate` needs none to search.
        instead = Dataset.from_dict({}) if searched else None
        super().__init__(
            model,
            args,
            train_dataset,
            eval_dataset=instead if eval_dataset is None else eval_dataset,
            retrieval_sets=searched,
            passage_model=self.document_model,
            **kwargs,
        )
        self.eval_dataset = eval_dataset
        for frozen in (self.document_model, self.start):
            if frozen is not None:
                frozen.to(args.device)
        if args.learn_temperatures and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise ValueError("`learn_temperatures` works neither with DeepSpeed nor with FSDP: leave it out.")
        starts = [args.token_temperature, args.pooled_temperature]
        # Logarithms, so that no step makes one of them negative.
        self.log_temperatures = nn.Parameter(torch.tensor(starts, device=args.device).log(), args.learn_temperatures)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`dict`: what decides on the trained weights, by which a checkpoint is known to be of this training."""
        documents = None if self.document_model is None else model_fingerprint(self.document_model)["weights"]
        return {"rows": self._rows, "document_model": documents} | super().settings

    @property
    def temperatures(self) -> dict[str, float]:
        """`dict[str, float]`: what the scores are divided by now, `"token"` and `"pooled"`."""
        return dict(zip(("token", "pooled"), self.log_temperatures.detach().exp().tolist(), strict=True))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.alpha is None or dataset is None:
            return super()._get_train_sampler(train_dataset)
        pairs = list(zip(dataset["query_language"][:], dataset["document_language"][:], strict=True))
        batch_size = self.args.train_batch_size * self.args.world_size
        return HybridSampler(pairs, batch_size, self.args.alpha, self, self.args.temperature)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = COLUMNS  # type: ignore[assignment]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Add the temperatures, if they are learnt, to the parameters of the optimizer; they do not decay."""
        made = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if made and self.args.learn_temperatures:
            optimizer.add_param_group({"params": [self.log_temperatures], "weight_decay": 0.0})
        return optimizer

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the batches of a step, as [`OpticalTrainer`] does, before which the temperatures have no gradient."""
        self.log_temperatures.grad = None  # that of the model's parameters alone is taken away by the Trainer
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Train as [`~transformers.Trainer`] does; the gradient of the temperatures is averaged here."""
        loss = super().training_step(*args, **kwargs)
        if self.log_temperatures.grad is not None:  # no wrapper of the model knows of them
            self.log_temperatures.grad = self.accelerator.reduce(self.log_temperatures.grad, "mean")
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of a batch of [`RetrievalCollator`], with the queries' output if asked.

        With `num_items_in_batch`, it is the batch's part in the mean over so many rows of all processes.
        """
        shared = model.training and self.accelerator.num_processes > 1
        queries, documents, allowed, shift = self._vectors(model, inputs, shared)
        scores = self._scores(queries, documents)
        positives = inputs["own"][:, 0] + shift
        own = inputs["own"].clamp(min=0)
        there = inputs["own"] >= 0
        scored = there & inputs["scores"].isfinite().any(1, keepdim=True)
        targets = inputs["scores"].nan_to_num() / self.args.score_temperature
        weights = {"token": self.args.token_weight, "pooled": self.args.pooled_weight}
        losses = torch.zeros(len(own), device=own.device)
        numbers: dict[str, Tensor] = {}
        retained = None
        if self.start is not None and model.training and (shared or inputs["english"].any()):
            with torch.no_grad():
                retained = self._scores(*self._vectors(self.start, inputs, shared)[:2])
        for index, (name, weight) in enumerate(weights.items()):
            if not weight:
                continue
            divided = scores[name] / self.log_temperatures[index].exp()
            own_scores = divided.gather(1, own + shift)
            terms = {}
            if self.args.contrastive_weight:
                terms["contrast"] = self.args.contrastive_weight, info_nce(divided, positives, allowed)
            if self.args.divergence_weight:
                divergence = score_divergence(own_scores, targets, there)
                terms["divergence"] = self.args.divergence_weight, divergence * scored.any(1)
            if self.args.margin_weight:
                terms["margin"] = self.args.margin_weight, margin_mse(own_scores, targets, scored)
            if retained is not None:
                held = score_divergence(divided, retained[name] / self.log_temperatures[index].detach().exp(), allowed)
                terms["retention"] = self.args.retention_weight, held * inputs["english"]
            for term, (factor, values) in terms.items():
                losses = losses + weight * factor * values
                numbers[f"{name}_{term}"] = values.detach().mean()
        step = self.state.global_step + 1
        self.finite_checks.add(
            losses,
            1,
            lambda _: (
                f"Step {step}: the loss is not finite. Training stopped. If the weights are sound, lower the learning "
                "rate, or train in float32 or bf16 instead of fp16."
            ),
        )
        loss = losses.mean()
        if num_items_in_batch is not None:  # the processes' gradients are averaged, hence their number
            loss = loss * (len(losses) * self.accelerator.num_processes / num_items_in_batch)
        if model.training:
            best = scores["token" if self.args.token_weight else "pooled"].detach().masked_fill(~allowed, -2.0)
            numbers["accuracy"] = (best.argmax(1) == positives).float().mean()
            if self.args.learn_temperatures:
                numbers |= {f"{name}_temperature": torch.tensor(each) for name, each in self.temperatures.items()}
            self._numbers.add(numbers)
            self._numbers.add_spread(queries)
            self._numbers.add_by_language(losses.detach(), inputs["language_ids"], self.data_collator.languages)
        return (loss, queries) if return_outputs else loss

    def _vectors(
        self, model: nn.Module, inputs: dict[str, Tensor], shared: bool
    ) -> tuple[OpticalOutput, OpticalOutput, Tensor, int]:
        """The queries; the passages, if `shared` of all processes; which are contrasted; where the own begin."""
        queries = self._encode(model, inputs, "query")
        if self.document_model is None:
            documents = self._encode(model, inputs, "document")
        else:
            with torch.no_grad():
                documents = self._encode(self.document_model, inputs, "document")
        ids, shift = inputs["document_ids"], 0
        if shared:
            documents, ids, shift = self._gather(documents, ids)
        known = (inputs["positive_ids"][:, :, None] == ids).any(1)
        allowed = ~known & documents.scoring_mask.any(1)  # what pads the smaller batch of a process has no token
        allowed[torch.arange(len(known)), inputs["own"][:, 0] + shift] = True
        return queries, documents, allowed, shift

    def _encode(self, model: nn.Module, inputs: Mapping[str, Tensor], side: str) -> OpticalOutput:
        tensors = [inputs[f"{side}_{name}"] for name in _INPUTS]
        size = self.args.encode_batch_size
        with self.accelerator.autocast():
            if size is None or len(tensors[0]) <= size:
                return model(**dict(zip(_INPUTS, tensors, strict=True)))
            parts = []
            for part in zip(*(tensor.split(size) for tensor in tensors), strict=True):
                longest = int(part[1].sum(1).max())
                cut = [tensor[:, :longest] for tensor in part]
                outputs = checkpoint(_outputs, model, *cut, use_reentrant=False)
                parts.append([F.pad(outputs[0], (0, 0, 0, tensors[0].shape[1] - longest)), outputs[1]])
        vectors, pooled = (torch.cat(each) for each in zip(*parts, strict=True))
        return OpticalOutput(token_vectors=vectors, scoring_mask=tensors[2], pooled=pooled)

    def _gather(self, documents: OpticalOutput, ids: Tensor) -> tuple[OpticalOutput, Tensor, int]:
        # All processes' passages, padded to the same numbers of passages and tokens, with their gradient.
        pad = self.accelerator.pad_across_processes
        gathered = []
        for tensor in (documents.token_vectors, documents.pooled):
            padded = pad(tensor, dim=0)
            gathered.append(torch.cat(all_gather(pad(padded, dim=1) if padded.ndim == 3 else padded)))
        mask = self.accelerator.gather(pad(pad(documents.scoring_mask.long(), dim=0), dim=1)).bool()
        every = self.accelerator.gather(pad(ids, dim=0))
        shift = self.accelerator.process_index * (len(every) // self.accelerator.num_processes)
        return OpticalOutput(token_vectors=gathered[0], scoring_mask=mask, pooled=gathered[1]), every, shift

    def _scores(self, queries: OpticalOutput, documents: OpticalOutput) -> dict[str, Tensor]:
        scores = {}
        if self.args.token_weight:
            sides = [(each.token_vectors, each.scoring_mask) for each in (queries, documents)]
            scores["token"] = maxsim_means(*sides[0], *sides[1])
        if self.args.pooled_weight:
            scores["pooled"] = queries.pooled.float() @ documents.pooled.float().T
        return scores

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Search the retrieval sets, and where there are rows to evaluate on, measure the loss on them."""
        if eval_dataset is not None or self.eval_dataset is not None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.search_all().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.learn_temperatures:
            write_json(Path(output_dir or str(self.args.output_dir)) / TEMPERATURES, self.temperatures)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.args.learn_temperatures:
            path = Path(resume_from_checkpoint) / TEMPERATURES
            try:
                saved = read_json(path)
                values = [math.log(saved[name]) for name in self.temperatures]
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise ValueError(f"The checkpoint is not whole: {path} is missing or damaged.") from error
            self.log_temperatures.data = torch.tensor(values, device=self.args.device)


def _outputs(model: nn.Module, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    # A tuple, since `checkpoint` looks for tensors in nothing else.
    output: OpticalOutput = model(**dict(zip(_INPUTS, tensors, strict=True)))
    return output.token_vectors, output.pooled


def _languages(train: Any, held_out: Any, given: Sequence[str] | None) -> list[str]:
    languages = set(given or ())
    for dataset in (train, held_out):
        if isinstance(dataset, Dataset):
            languages |= set(dataset["query_language"][:])
        elif dataset is not None and not given:
            raise ValueError("`languages` is needed for a stream: the languages of its queries, such as ['sw', 'en'].")
    return sorted(languages)
