"""Measure a retriever on a collection of plain files, and write its run and its official scores.

    python examples/evaluate_retrieval.py --model yoruba-student --document_model intfloat/multilingual-e5-small \
        --topics topics.yo.tsv --passages passages.en.jsonl --qrels qrels.yo.tsv --output_dir measured

`--model` is a student, a teacher, an encoder or a sentence-transformers model, a folder or a Hub name. Without
`--document_model` it encodes the passages too. `accelerate launch` spreads both encoding and search. A run that was
stopped goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from transformers import HfArgumentParser

from optical_hf import OpticalTeacher
from optical_hf.data.languages import language_code
from optical_hf.data.trec_files import iter_passages, read_qrels, read_topics, write_run
from optical_hf.evaluation.collection import evaluate_collection
from optical_hf.files import write_json
from optical_hf.launching import check_writable, end_processes, start_processes
from optical_hf.quickstart.model import quickstart_model
from optical_hf.retrieval.candidates import first_stage
from optical_hf.retrieval.index.build import model_fingerprint


@dataclass
class ModelArguments:
    """The models, and how their passages are kept."""

    output_dir: str = field(metadata={"help": "Folder for metrics.json, the runs and the index."})
    model: str | None = field(default=None, metadata={"help": "Encodes the queries; else the quickstart's model."})
    document_model: str | None = field(default=None, metadata={"help": "Encodes the passages; else --model."})
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the checkpoint's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})
    query_length: int | None = field(default=None, metadata={"help": "Longest query in tokens."})
    document_length: int | None = field(default=None, metadata={"help": "Longest passage in tokens."})
    batch_size: int = field(default=32, metadata={"help": "Texts a forward pass."})
    index_dir: str | None = field(
        default=None, metadata={"help": "Folder of the index, to share it between runs; else index/ in --output_dir."}
    )
    shard_size: int = field(default=10_000, metadata={"help": "Passages in a file of the index."})
    single: bool = field(default=False, metadata={"help": "Keep pooled vectors only: no late interaction."})
    dim: int | None = field(default=None, metadata={"help": "Rotate token vectors down to so many dimensions."})
    pool_factor: int = field(default=1, metadata={"help": "Keep one token vector in so many."})
    dtype: str = field(default="float16", metadata={"help": "Of the vectors kept.", "choices": ["float16", "int8"]})
    memory_gb: float = field(default=4.0, metadata={"help": "Most memory the search takes, in GB a process."})
    depth: int = field(default=100, metadata={"help": "Passages of the first stage that are reranked."})

    def load(self) -> tuple[OpticalTeacher, OpticalTeacher]:
        """Load the model of the queries and that of the passages, which may be one."""
        names = ("query_prefix", "document_prefix", "query_length", "document_length")
        options = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        device = PartialState().device
        model = OpticalTeacher.from_checkpoint(self.model or quickstart_model(), **options).to(device)
        if self.document_model is None:
            return model, model
        return model, OpticalTeacher.from_checkpoint(self.document_model, **options).to(device)

    def index_options(self) -> dict[str, Any]:
        """The arguments of [`build_index`] and the search."""
        names = ("batch_size", "shard_size", "single", "dim", "pool_factor", "dtype", "memory_gb")
        return {name: getattr(self, name) for name in names}

    def description(self, query_model: OpticalTeacher, document_model: OpticalTeacher) -> dict[str, Any]:
        """What a result says of the models it is about."""
        packages = {"optical_hf": version("optical-hf"), "torch": torch.__version__}
        return {
            "model": self.model or "quickstart",
            "document_model": self.document_model or self.model or "quickstart",
            "index": {name: getattr(self, name) for name in ("single", "dim", "pool_factor", "dtype")},
            "weights": {
                "model": model_fingerprint(query_model)["weights"],
                "document_model": model_fingerprint(document_model)["weights"],
            },
            "versions": packages | {"transformers": transformers.__version__},
        }


@dataclass
class CollectionArguments:
    """What is searched, and what a first stage may have found of it."""

    topics: str = field(metadata={"help": "query id<TAB>query lines."})
    passages: list[str] = field(metadata={"help": "JSON lines with docid, text and perhaps title; one or more files."})
    qrels: str = field(metadata={"help": "TREC judgements."})
    query_language: str | None = field(default=None, metadata={"help": "Of the topics, for the record and BM25."})
    document_language: str | None = field(default=None, metadata={"help": "Of the passages; else that of the topics."})
    first_stage: str | None = field(default=None, metadata={"help": "'bm25', or a TREC run: only these are reranked."})
    max_queries: int | None = field(default=None, metadata={"help": "Use the first topics only."})


def main(arguments: Sequence[str]) -> None:
    parser = HfArgumentParser([ModelArguments, CollectionArguments])  # type: ignore[list-item]
    models, collection = parser.parse_args_into_dataclasses(list(arguments))
    state = start_processes()
    logging.basicConfig(level=logging.INFO if state.is_main_process else logging.ERROR, format="%(message)s")
    output = Path(models.output_dir)
    check_writable(output, 0)
    topics, qrels = read_topics(collection.topics), read_qrels(collection.qrels)
    for qid in list(topics)[collection.max_queries :] if collection.max_queries else ():
        qrels.pop(qid, None)  # a judged query that is no topic at all counts, as with `trec_eval -c`
    query_language, document_language = languages(collection)
    candidates = None
    if collection.first_stage is not None:
        if collection.first_stage == "bm25" and (query_language is None or query_language != document_language):
            raise ValueError("--first_stage bm25 needs the --query_language, which the passages have to share.")
        candidates = first_stage(
            collection.first_stage,
            {qid: text for qid, text in topics.items() if qid in qrels},
            lambda: iter_passages(collection.passages),
            str(document_language),
            output / "bm25",
            models.depth,
        )
    query_model, document_model = models.load()
    measured = evaluate_collection(
        query_model,
        document_model,
        topics,
        qrels,
        iter_passages(collection.passages),
        models.index_dir or output / "index",
        candidates=candidates,
        **models.index_options(),
    )
    if not state.is_main_process:
        return
    first = next(iter(measured))
    protocol = f"full collection of {' '.join(Path(path).name for path in collection.passages)}"
    write_json(
        output / "metrics.json",
        {
            **measured[first].scores,
            "scoring": first,
            "protocol": protocol if candidates is None else reranked(protocol, collection.first_stage, models.depth),
            "query_language": query_language,
            "document_language": document_language,
            "num_queries": len(qrels),
            "by_scoring": {scoring: one.scores for scoring, one in measured.items()},
            **models.description(query_model, document_model),
            "per_query": {scoring: one.per_query for scoring, one in measured.items()},
        },
        indent=2,
    )
    for scoring, one in measured.items():
        write_run(one.run, output / ("run.trec" if scoring == first else f"run.{scoring}.trec"))
        print(f"{scoring:7}" + "".join(f"  {name} {value:.4f}" for name, value in one.scores.items()))


def languages(collection: CollectionArguments) -> tuple[str | None, str | None]:
    """Return the codes of the topics' and the passages' language, if they are named."""
    query = None if collection.query_language is None else language_code(collection.query_language)
    document = query if collection.document_language is None else language_code(collection.document_language)
    return query, document


def reranked(protocol: str, first_stage: str | None, depth: int) -> str:
    """Name the protocol as a figure has to be labelled that is of a first stage's results only."""
    return protocol if first_stage is None else f"{protocol}, {depth} of {Path(first_stage).name} reranked"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"error: {error}")
    end_processes()
