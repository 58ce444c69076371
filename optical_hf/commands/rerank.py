"""Rerank the best passages of a TREC run by a retriever or by a cross-encoder.

    optical-hf rerank --model reranker --run bm25.trec --topics topics.yo.tsv --passages passages.en.jsonl \
        --output reranked.trec

`--model` is a cross-encoder of sentence-transformers, or any model of `optical-hf evaluate`. What is below the best
`--k` keeps its order below them. `optical-hf evaluate --first_stage` measures the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arguments import ArgumentReader
from ..bounds import check_count, check_memory
from ..data.trec_files import iter_passages, read_run, read_topics, write_run
from ..launching import check_files, run, start_logging, start_processes
from ..retrieval.reranking import rerank
from .encoders import EncoderArguments


@dataclass
class RerankArguments:
    """What is reranked."""

    run: str = field(metadata={"help": "TREC run of a first stage."})
    topics: str = field(metadata={"help": "query id<TAB>query lines."})
    passages: list[str] = field(metadata={"help": "JSON lines with docid, text and perhaps title; one or more files."})
    output: str = field(metadata={"help": "TREC run to write."})
    k: int = field(default=100, metadata={"help": "Passages a query that are reranked; the others follow below."})
    pooled: bool = field(default=False, metadata={"help": "Score by pooled vectors instead of MaxSim."})
    memory_gb: float = field(default=4.0, metadata={"help": "Most memory that scoring by vectors takes, in GB."})

    def __post_init__(self) -> None:
        check_count("--k", self.k)
        check_memory("--memory_gb", self.memory_gb)


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Rerank the best passages of a TREC run by a retriever or by a cross-encoder."
    return ArgumentReader(RerankArguments, EncoderArguments, prog="optical-hf rerank", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    given, encoders = reader().read(arguments)
    if not Path(given.output).absolute().parent.is_dir():
        raise ValueError(f"--output {given.output}: its folder is not there; make it first.")
    check_files("--run", given.run)
    check_files("--topics", given.topics)
    check_files("--passages", *given.passages)
    state = start_processes()
    start_logging(state.is_main_process)
    first, topics = read_run(given.run), read_topics(given.topics)
    options: dict[str, Any] = {"pooled": given.pooled, "memory_gb": given.memory_gb}
    model: Any = encoders.load_cross_encoder()
    if model is None:
        model, options["document_model"] = encoders.load()
    reranked = rerank(
        first, topics, iter_passages(given.passages), model, given.k, batch_size=encoders.batch_size, **options
    )
    if state.is_main_process:
        write_run(reranked, given.output)
        print(f"{given.output} holds the run of {len(reranked)} queries.")


if __name__ == "__main__":
    run(main, sys.argv[1:])
