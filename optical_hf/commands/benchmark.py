"""Measure how fast this package is, beside others that do the same, in rounds that alternate.

    optical-hf benchmark --output_dir benchmark
    optical-hf benchmark --only step transport --rounds 9
    optical-hf benchmark --device cuda --only step transport encoding maxsim

Each measure is warmed up, then timed ours, peer, ours, peer and so on: on the CPU by the seconds that the processor
works, on a card by the clock on the wall. Printed are the median of the rounds' ratios, above 1 where ours is the
faster one, and which share of the machine's own rate of matrix products is reached. `--output_dir` keeps the table as
`table.md`, and every round's seconds in `benchmark.json`. The peers are those of
`pip install 'optical-hf[bench]'`; one that is not there is left out, and the table says so. bm25, metric, import,
bitext and growth's bitext are measured on the CPU whatever the device is. Run nothing else meanwhile.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

from ..arguments import ArgumentReader
from ..benchmark.run import MEASURES, run_benchmark
from ..benchmark.setup import Setup
from ..benchmark.table import format_table
from ..bounds import check_count, check_fields
from ..files import write_json, write_text
from ..launching import check_writable, run, start_logging
from ..models.loading_optical import check_name


@dataclass
class BenchmarkArguments:
    """What is measured, and how."""

    only: list[str] = field(
        default_factory=list, metadata={"help": "Measure these alone; else all.", "choices": list(MEASURES)}
    )
    device: str = field(default="cpu", metadata={"help": "Where.", "choices": ["cpu", "cuda"]})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    rounds: int = field(default=5, metadata={"help": "How often each is timed, ours and the peer in turn."})
    model: str | None = field(default=None, metadata={"help": "Encoder or retriever; else multilingual-e5-small."})
    quick: bool = field(default=False, metadata={"help": "Tiny sizes and a tiny model, to see that it runs."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder of benchmark.json and table.md."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "threads", most=1024)
        check_fields(self, check_count, "rounds")


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Measure how fast this package is, beside others that do the same."
    return ArgumentReader(BenchmarkArguments, prog="optical-hf benchmark", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    [given] = reader().read(arguments)
    start_logging(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no card here.")
    if given.model is not None:
        check_name(given.model)
    if given.output_dir is not None:
        check_writable(given.output_dir, 0)
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder), given.device, given.threads, given.rounds, given.quick, given.model)
        record = run_benchmark(setup, given.only, shlex.join(["optical-hf", "benchmark", *arguments]))
    table = format_table(record)
    if given.output_dir is not None:
        write_json(Path(given.output_dir) / "benchmark.json", record, indent=2)
        write_text(Path(given.output_dir) / "table.md", f"{table}\n")
    print(table)


if __name__ == "__main__":
    run(main, sys.argv[1:])
