"""Encode a collection into an index on disk, or go on with one that was stopped.

    optical-hf index --model yoruba-student --passages passages.en.jsonl --index_dir index

Where a student was distilled to search what its teacher has encoded, the index is the teacher's: give the teacher as
`--model`. `accelerate launch -m optical_hf.commands.index` shares the work between processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..arguments import ArgumentReader
from ..data.trec_files import iter_passages
from ..launching import check_files, run, start_logging, start_processes
from ..retrieval.index.build import build_index
from .encoders import EncoderArguments, IndexArguments


@dataclass
class PassageArguments:
    """What is encoded."""

    passages: list[str] = field(metadata={"help": "JSON lines with docid, text and perhaps title; one or more files."})


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
    state = start_processes()
    start_logging(state.is_main_process)
    check_files("--passages", *given.passages)
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
