"""Search an index: print what is found for a question, or write the TREC run of a file of topics.

    optical-hf search --model yoruba-student --index_dir index --query "Ta ni ó kọ ìwé yìí?"
    optical-hf search --model yoruba-student --index_dir index --topics topics.yo.tsv --run run.trec

The index is one that `optical-hf index` or `optical-hf evaluate` left. `--model` encodes the questions only; an index
of BM25 needs none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..arguments import ArgumentReader
from ..bounds import check_count, check_fields, check_memory
from ..data.trec_files import iter_passages, read_topics, write_run
from ..launching import check_files, run, start_logging, start_processes
from ..retrieval.bm25 import BM25Index, is_bm25_index
from ..retrieval.index.exact import PassageIndex
from ..retrieval.search import Run
from .encoders import EncoderArguments


@dataclass
class SearchedArguments:
    """What is searched, for what."""

    index_dir: str = field(metadata={"help": "Folder of the index, as `optical-hf index` or evaluate left it."})
    query: list[str] = field(default_factory=list, metadata={"help": "Questions; what is found is printed."})
    topics: str | None = field(default=None, metadata={"help": "query id<TAB>query lines, instead of --query."})
    run: str | None = field(default=None, metadata={"help": "TREC run to write; needed with --topics."})
    passages: list[str] = field(default_factory=list, metadata={"help": "Their files, to print the texts as well."})
    k: int | None = field(default=None, metadata={"help": "Passages a query: 10 to print, 100 to write by default."})
    pooled: bool = field(default=False, metadata={"help": "Score by pooled vectors instead of MaxSim."})
    memory_gb: float = field(default=4.0, metadata={"help": "Most memory the search takes, in GB a process."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "k")
        check_fields(self, check_memory, "memory_gb")


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Search an index: print what is found for a question, or write the TREC run of a file of topics."
    return ArgumentReader(SearchedArguments, EncoderArguments, prog="optical-hf search", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    given, encoders = reader().read(arguments)
    if bool(given.query) == bool(given.topics):
        raise ValueError("Give either --query with one or more questions, or --topics with a file of them.")
    if bool(given.topics) != bool(given.run):
        raise ValueError("--topics and --run go together: the file of questions, and the run that is written.")
    if given.run is not None and not Path(given.run).absolute().parent.is_dir():
        raise ValueError(f"--run {given.run}: its folder is not there; make it first.")
    check_files("--passages", *given.passages)
    check_files("--topics", given.topics)
    for name in ("document_model", "document_prefix", "document_length"):
        if getattr(encoders, name) is not None:
            raise ValueError(f"--{name} is of `optical-hf index`: a search encodes queries only, by --model.")
    state = start_processes()
    start_logging(state.is_main_process)
    topics = read_topics(given.topics) if given.topics else {f"query {i}": text for i, text in enumerate(given.query)}
    k = (100 if given.topics else 10) if given.k is None else given.k
    if is_bm25_index(given.index_dir):
        if encoders != EncoderArguments() or given.pooled:
            raise ValueError(f"{given.index_dir} holds an index of BM25, which takes no model: leave it out.")
        found = BM25Index(given.index_dir).search(topics, k)
    else:
        found = _search(given, encoders, topics, k)
    if not state.is_main_process:
        return
    if given.run is not None:
        write_run(found, given.run)
        print(f"{given.run} holds the run of {len(found)} queries.")
        return
    docids = {docid for results in found.values() for docid in results}
    texts = {docid: text for docid, text in iter_passages(given.passages) if docid in docids} if given.passages else {}
    for qid, results in found.items():
        print(topics[qid])
        for rank, (docid, score) in enumerate(results.items(), start=1):
            print(f"{rank:4}  {score:8.4f}  {docid}  {texts.get(docid, '')}".rstrip())


def _search(given: SearchedArguments, encoders: EncoderArguments, topics: Mapping[str, str], k: int) -> Run:
    index = PassageIndex.load(given.index_dir)
    if index.manifest["options"]["single"] and not given.pooled:
        raise ValueError(f"{given.index_dir} holds one vector a passage (--single): give --pooled.")
    model, _ = encoders.load()
    tokens, pooled = model.encode_both(list(topics.values()), "query", batch_size=encoders.batch_size)
    if given.pooled:
        return index.search_pooled(pooled, list(topics), k=k, memory_gb=given.memory_gb)
    return index.search(tokens, list(topics), k=k, memory_gb=given.memory_gb)


if __name__ == "__main__":
    run(main, sys.argv[1:])
