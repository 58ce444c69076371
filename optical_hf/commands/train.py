"""Train a retriever on queries with passages that answer them: an English teacher, or a student to be fine-tuned.

    optical-hf train \
        --model yoruba-student --rows yo-en=rows.jsonl sw=topics.tsv,passages.jsonl,qrels.tsv --output_dir tuned \
        --topics sw=dev.topics.tsv --passages sw=passages.jsonl --qrels sw=dev.qrels.tsv

`sw` are queries and passages in Swahili, `yo-en` queries in Yoruba over English passages. `optical-hf mine` makes
rows with hard negatives. In several processes: `accelerate launch -m optical_hf.commands.train`. Model, tokenizer,
`results.json` and a model card lie in `--output_dir`, checkpoints below it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import set_seed

from ..arguments import ArgumentReader
from ..bounds import check_count, check_fields
from ..data.retrieval_set import RetrievalSet
from ..data.training_row_sources import language_pair
from ..data.training_rows import TrainingRows, load_training_rows, parse_row_arguments
from ..data.trec_files import read_passages, read_qrels, read_topics
from ..evaluation.gains import format_table
from ..files import with_digest, write_json
from ..hub.weights import weights_hash
from ..launching import check_files, check_world_size, check_writable, run, start_logging, writing
from ..models.loading_optical import check_name
from ..models.modeling_optical import OpticalStudent, OpticalTeacher
from ..quickstart import quickstart_model
from ..training.model_card import write_card
from ..training.provenance import checkpoint_origin, machine, row_source_names
from ..training.retrieval_args import OpticalRetrievalArguments
from ..training.retrieval_trainer import OpticalRetrievalTrainer

logger = logging.getLogger(__name__)

TEXT_OPTIONS = ("query_prefix", "document_prefix", "query_length", "document_length", "projection_dim")
# Of the arguments of the training, those that results.json keeps beside what decides on the weights.
_KEPT = ("encode_batch_size", "num_train_epochs", "max_steps", "load_best_model_at_end", "metric_for_best_model")


@dataclass
class TrainedModel:
    """What is trained."""

    model: str | None = field(
        default=None, metadata={"help": "What it starts from, a folder or a Hub name; else multilingual-e5-small."}
    )
    document_model: str | None = field(
        default=None, metadata={"help": "Encodes the passages and stays as it is: its index serves the model trained."}
    )
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the checkpoint's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})
    query_length: int | None = field(default=None, metadata={"help": "Longest query in tokens."})
    document_length: int | None = field(default=None, metadata={"help": "Longest passage in tokens."})
    projection_dim: int | None = field(default=None, metadata={"help": "Size of a new projection."})

    @property
    def name(self) -> str:
        """`str`: the folder or Hub name of what it starts from."""
        return self.model or str(quickstart_model())

    def __post_init__(self) -> None:
        check_fields(self, check_count, "query_length", "document_length", "projection_dim", most=10**6)

    def load(self) -> tuple[OpticalStudent, OpticalTeacher | None]:
        """Load the model that is trained, and the one that encodes passages if it is another."""
        options = {name: getattr(self, name) for name in TEXT_OPTIONS if getattr(self, name) is not None}
        model = OpticalStudent.from_checkpoint(self.name, **options)
        options.pop("projection_dim", None)
        name = str(quickstart_model()) if self.document_model == "quickstart" else self.document_model
        return model, None if name is None else OpticalTeacher.from_checkpoint(name, **options)


@dataclass
class RowArguments:
    """What it is trained on."""

    rows: list[str] = field(
        default_factory=list,
        metadata={"help": "pair=source ..., where a pair is 'sw', or 'sw-en' for queries in sw over passages in en."},
    )
    max_rows: int | None = field(default=None, metadata={"help": "Use the first rows of each pair only."})
    min_grade: int = field(default=1, metadata={"help": "The least grade of a passage that answers a query."})
    article_query: str = field(
        default="title",
        metadata={"help": "What of an article is a query.", "choices": ["title", "first_sentence"]},
    )

    def __post_init__(self) -> None:
        check_fields(self, check_count, "max_rows", "min_grade")

    def load(self, seed: int) -> TrainingRows:
        """Read the rows."""
        sources = parse_row_arguments(self.rows)
        if not sources:
            raise ValueError("--rows is needed: what to train on, such as 'sw=rows.jsonl'.")
        return load_training_rows(
            sources, max_rows=self.max_rows, min_grade=self.min_grade, article_query=self.article_query, seed=seed
        )


@dataclass
class JudgedArguments:
    """What it is evaluated on."""

    collection: str | None = field(default=None, metadata={"help": "What questions and passages are called."})
    topics: list[str] = field(default_factory=list, metadata={"help": "pair=questions.tsv ..."})
    passages: list[str] = field(default_factory=list, metadata={"help": "pair=passages.jsonl ..."})
    qrels: list[str] = field(default_factory=list, metadata={"help": "pair=qrels.tsv ..."})
    max_queries: int | None = field(default=None, metadata={"help": "Use the first questions of each pair only."})
    strict: bool = field(
        default=False, metadata={"help": "Refuse judged questions and passages that are not there; else a warning."}
    )

    def __post_init__(self) -> None:
        check_fields(self, check_count, "max_queries")

    def load(self) -> list[RetrievalSet]:
        """Read the judged questions of every pair; pairs that name the same passages share them."""
        files = {
            name: parse_row_arguments(getattr(self, name), f"--{name}") for name in ("topics", "passages", "qrels")
        }
        given = {name: sorted(by_pair) for name, by_pair in files.items()}
        if len(set(map(tuple, given.values()))) > 1:
            listed = ", ".join(f"--{name} for {pairs}" for name, pairs in given.items())
            raise ValueError(f"Every pair needs --topics, --passages and --qrels; there are {listed}.")
        for name, by_pair in files.items():
            check_files(f"--{name}", *(path for paths in by_pair.values() for path in paths))
        collections: dict[tuple[str, ...], dict[str, str]] = {}
        sets = []
        for pair, (topics, *more) in files["topics"].items():
            if more or len(files["qrels"][pair]) > 1:
                raise ValueError(f"--topics and --qrels of {pair!r} are there twice: give one file of each.")
            key = tuple(files["passages"][pair])
            if key not in collections:
                collections[key] = read_passages(key)
            asked, judged = read_topics(topics), read_qrels(files["qrels"][pair][0])
            kept = dict(list(asked.items())[: self.max_queries])
            judged = {qid: grades for qid, grades in judged.items() if qid in kept or qid not in asked}
            sets.append(RetrievalSet(pair, kept, collections[key], judged, *language_pair(pair), self.strict))
        return sets


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Train a retriever on queries with passages that answer them."
    classes = (TrainedModel, RowArguments, JudgedArguments, OpticalRetrievalArguments)
    return ArgumentReader(*classes, prog="optical-hf train", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    models, rows, asked, args = reader().read(arguments)
    check_world_size(args.world_size)
    check_writable(args.output_dir, 0)
    start_logging(args.process_index == 0)
    with writing(args.output_dir, args.process_index == 0):
        train(models, rows, asked, args)


def train(models: TrainedModel, rows: RowArguments, asked: JudgedArguments, args: OpticalRetrievalArguments) -> None:
    """Measure the start, train, measure again, and write what happened beside the model."""
    set_seed(args.seed)
    started = time.time()
    folder = Path(str(args.output_dir))
    for name in (models.model, models.document_model):
        if name not in (None, "quickstart"):
            check_name(str(name))
    sets = asked.load()
    loaded = rows.load(args.seed)
    model, document_model = models.load()
    start = checkpoint_origin(models.name)
    trainer = OpticalRetrievalTrainer(model, args, loaded.dataset, retrieval_sets=sets, document_model=document_model)
    trained_on = {language_pair(pair)[0] for pair in loaded.counts}
    languages: dict[str, dict[str, Any]] = {}
    for each in sets:
        languages[each.name] = {"seen": each.query_language in trained_on, "queries": len(each.qrels)}
        languages[each.name]["zero_shot"] = trainer.evaluate_retrieval(each)
    output = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(_internal_call=True)  # not pushed yet: card and results are to come
    for each in sets:
        languages[each.name]["student"] = trainer.evaluate_retrieval(each)
    if args.process_index != 0:
        return
    if document_model is None:  # it encodes both sides, and is no student of another's passages
        OpticalTeacher.from_pretrained(folder).save_pretrained(folder)
    names = (*args.decisive(), *_KEPT)
    encoder = None if document_model is None else checkpoint_origin(str(models.document_model))["name"]
    results = {
        "task": "retrieval",
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "student": start["name"],
        "base_model": start["base_model"],
        "license": start["license"],
        "document_model": encoder,
        "seed": args.seed,
        "steps": trainer.state.global_step,
        "rows": loaded.counts,
        "row_sources": row_source_names(parse_row_arguments(rows.rows)),
        "scored_by": loaded.scored_by,
        "collection": asked.collection,
        "protocol": f"over all passages, encoded by {encoder or 'the model itself'}" if sets else None,
        "languages": languages,
        "temperatures": trainer.temperatures,
        "training_seconds": trainer.seconds_before + output.metrics["train_runtime"],
        "total_seconds": trainer.seconds_before + time.time() - started,
        "processes": args.world_size,
        "machine": machine(args.device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "weights": weights_hash(folder),
        "arguments": {name: getattr(args, name) for name in names}
        | {kind: trainer.accelerator.mixed_precision == kind for kind in ("bf16", "fp16")},
    }
    write_json(folder / "results.json", with_digest(results), indent=2)
    write_card(folder, repo_id=trainer.hub_model_id if args.push_to_hub else None)
    if languages:
        print(format_table(languages))
    print(f"\nThe model is in {args.output_dir}. Its card, README.md, says how it is loaded.")
    if args.push_to_hub:
        trainer.push_output("End of training")
        print(f"It is on the Hub as {trainer.hub_model_id}.")


if __name__ == "__main__":
    run(main, sys.argv[1:])
