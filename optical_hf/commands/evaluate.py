"""Measure a retriever on a collection of plain files, and write its run and its official scores.

    optical-hf evaluate --model yoruba-student --document_model intfloat/multilingual-e5-small \
        --topics topics.yo.tsv --passages passages.en.jsonl --qrels qrels.yo.tsv --output_dir measured

`--model` is a student, a teacher, an encoder or a sentence-transformers model, a folder or a Hub name. Without
`--document_model` it encodes the passages too. With `--first_stage` it may be a cross-encoder.
`accelerate launch -m optical_hf.commands.evaluate` spreads both encoding and search over its processes. A run that was
stopped goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..arguments import ArgumentReader
from ..data.languages import language_code
from ..data.trec_files import iter_passages, read_qrels, read_topics, write_run
from ..evaluation.collection import check_collection, evaluate_collection, evaluate_cross_encoder
from ..files import write_json
from ..launching import check_files, check_writable, run, start_logging, start_processes
from ..retrieval.candidates import first_stage
from .encoders import EncoderArguments, IndexArguments, SearchArguments


@dataclass
class CollectionArguments:
    """What is searched."""

    output_dir: str = field(metadata={"help": "Folder for metrics.json, the runs and the index."})
    topics: str = field(metadata={"help": "query id<TAB>query lines."})
    passages: list[str] = field(metadata={"help": "JSON lines with docid, text and perhaps title; one or more files."})
    qrels: str = field(metadata={"help": "TREC judgements."})
    query_language: str | None = field(default=None, metadata={"help": "Of the topics, for the record and BM25."})
    document_language: str | None = field(default=None, metadata={"help": "Of the passages; else that of the topics."})

    def languages(self) -> tuple[str | None, str | None]:
        """Return the codes of the topics' and the passages' language, if they are named."""
        query = None if self.query_language is None else language_code(self.query_language)
        document = query if self.document_language is None else language_code(self.document_language)
        return query, document


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Measure a retriever on a collection of plain files, and write its run and its official scores."
    classes = (CollectionArguments, EncoderArguments, SearchArguments, IndexArguments)
    return ArgumentReader(*classes, prog="optical-hf evaluate", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    collection, encoders, searching, kept = reader().read(arguments)
    state = start_processes()
    start_logging(state.is_main_process)
    output = Path(collection.output_dir)
    check_writable(output, 0)
    check_files("--topics", collection.topics)
    check_files("--qrels", collection.qrels)
    check_files("--passages", *collection.passages)
    check_files("--first_stage", *searching.runs())
    encoders.check_names()
    topics, qrels = read_topics(collection.topics), read_qrels(collection.qrels)
    for qid in list(topics)[searching.max_queries :] if searching.max_queries is not None else ():
        qrels.pop(qid, None)  # a judged query that is no topic at all counts, as with `trec_eval -c`
    query_language, document_language = collection.languages()
    candidates = None
    if searching.first_stage is not None:
        if searching.first_stage == "bm25" and (query_language is None or query_language != document_language):
            raise ValueError("--first_stage bm25 needs the --query_language, which the passages have to share.")
        candidates = first_stage(
            searching.first_stage,
            {qid: text for qid, text in topics.items() if qid in qrels},
            lambda: iter_passages(collection.passages),
            document_language,
            output / Path(searching.first_stage).name,
            searching.depth,
        )
    missing = check_collection(topics, qrels, iter_passages(collection.passages), candidates, strict=searching.strict)
    cross_encoder = encoders.load_cross_encoder()
    if cross_encoder is not None:
        if candidates is None:
            raise ValueError(f"{encoders.model} is a cross-encoder, which ranks what a --first_stage found: give one.")
        description = encoders.description(cross_encoder, cross_encoder)
        measured = evaluate_cross_encoder(
            cross_encoder,
            topics,
            qrels,
            iter_passages(collection.passages),
            candidates,
            missing=missing,
            batch_size=encoders.batch_size,
        )
    else:
        query_model, document_model = encoders.load()
        description = {"index": kept.options(), **encoders.description(query_model, document_model)}
        measured = evaluate_collection(
            query_model,
            document_model,
            topics,
            qrels,
            iter_passages(collection.passages),
            kept.index_dir or output / "index",
            candidates=candidates,
            missing=missing,
            batch_size=encoders.batch_size,
            memory_gb=searching.memory_gb,
            **kept.options(),
        )
    if not state.is_main_process:
        return
    first = next(iter(measured))
    names = " ".join(Path(path).name for path in collection.passages)
    write_json(
        output / "metrics.json",
        {
            **measured[first].scores,
            "scoring": first,
            "protocol": searching.protocol(f"full collection of {names}"),
            "query_language": query_language,
            "document_language": document_language,
            "num_queries": len(qrels),
            "missing": missing,
            "by_scoring": {scoring: each.scores for scoring, each in measured.items()},
            **description,
            "per_query": {scoring: each.per_query for scoring, each in measured.items()},
        },
        indent=2,
    )
    for scoring, each in measured.items():
        write_run(each.run, output / ("run.trec" if scoring == first else f"run.{scoring}.trec"))
        print(f"{scoring:7}" + "".join(f"  {name} {value:.4f}" for name, value in each.scores.items()))


if __name__ == "__main__":
    run(main, sys.argv[1:])
