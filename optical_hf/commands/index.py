"""Encode a collection into an index on disk, or go on with one that was stopped.

    optical-hf index --model yoruba-student --passages passages.en.jsonl --index_dir index

Where a student was distilled to search what its teacher has encoded, the index is the teacher's: give the teacher as
`--model`. `accelerate launch -m optical_hf.commands.index` shares the work between processes.

An index of BM25, over the words of a language, or over character 4-grams where queries are of another language:

    optical-hf index --model bm25 --language en --passages passages.en.jsonl --index_dir bm25-words
    optical-hf index --model bm25-char4 --passages passages.en.jsonl --index_dir bm25-char4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..arguments import ArgumentReader
from ..data.trec_files import iter_passages
from ..launching import check_files, run, start_logging, start_processes
from ..retrieval.candidates import BM25, bm25_index
from ..retrieval.index.build import build_index
from .encoders import EncoderArguments, IndexArguments


@dataclass
class PassageArguments:
    """What is encoded."""

    passages: list[str] = field(metadata={"help": "JSON lines with docid, text and perhaps title; one or more files."})
    language: str | None = field(default=None, metadata={"help": "Of the passages, for --model bm25."})


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Encode a collection into an index on disk, or go on with one that was stopped."
    classes = (PassageArguments, EncoderArguments, IndexArguments)
    return ArgumentReader(*classes, prog="optical-hf index", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    given, encoders, kept = reader().read(arguments)
    if kept.index_dir is None:
        raise ValueError("--index_dir is needed: the folder of the index.")
    if (given.language is None) == (encoders.model == "bm25"):
        raise ValueError("--language and --model bm25 go together: no other model is made for one language.")
    if encoders.model in BM25 and (
        encoders != EncoderArguments(model=encoders.model) or kept != IndexArguments(index_dir=kept.index_dir)
    ):
        raise ValueError(f"--model {encoders.model} takes --passages, --language and --index_dir, and nothing else.")
    state = start_processes()
    start_logging(state.is_main_process)
    check_files("--passages", *given.passages)
    if encoders.model in BM25:
        terms = bm25_index(lambda: iter_passages(given.passages), given.language, kept.index_dir)
        if state.is_main_process:
            print(f"{kept.index_dir} holds a BM25 index of {len(terms)} passages.")
        return
    encoders.check_names()
    for _ in iter_passages(given.passages):
        pass  # what is wrong with them shows now, and not after hours of encoding
    _, model = encoders.load()
    index = build_index(
        model, iter_passages(given.passages), kept.index_dir, batch_size=encoders.batch_size, **kept.options()
    )
    if state.is_main_process:
        print(f"{kept.index_dir} holds {len(index)} passages in {len(index.shards)} files.")


if __name__ == "__main__":
    run(main, sys.argv[1:])
