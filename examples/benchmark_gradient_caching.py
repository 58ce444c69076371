"""Peak memory of one gradient of OpticalRetrievalTrainer, plain and with gradient caching, in processes of their own.

    python examples/benchmark_gradient_caching.py --batch_size 256 --encode_batch_size 16

Printed are the memory that the step took beyond the loaded model, the time, and how far loss and gradient differ.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from datasets import Dataset
from safetensors.torch import load_file, save_file

from optical_hf import OpticalStudent
from optical_hf.arguments import ArgumentReader
from optical_hf.launching import run
from optical_hf.quickstart import quickstart_model
from optical_hf.training.retrieval_args import OpticalRetrievalArguments
from optical_hf.training.retrieval_trainer import OpticalRetrievalTrainer


@dataclass
class Measured:
    """What is measured."""

    batch_size: int = field(default=256, metadata={"help": "Queries, each with one passage."})
    encode_batch_size: int = field(default=16, metadata={"help": "Texts encoded at once with gradient caching."})
    words: int = field(default=40, metadata={"help": "Words of a passage; a query has a quarter."})
    gradient: str | None = field(default=None, metadata={"help": "Where one process leaves its gradient."})
    cached: bool = field(default=False, metadata={"help": "Whether this process caches."})


def main(words: Sequence[str]) -> None:
    """Measure both, each in a process of its own."""
    (given,) = ArgumentReader(Measured, prog="benchmark_gradient_caching.py", description=__doc__).read(words)
    if given.gradient is not None:
        return _measure(given)
    with tempfile.TemporaryDirectory() as folder:
        gradients = []
        for cached in ("false", "true"):
            path = Path(folder) / f"{cached}.safetensors"
            options = ["--gradient", str(path), "--cached", cached]
            subprocess.run([sys.executable, __file__, *words, *options], check=True)
            gradients.append(load_file(path))
        plain, cached_ones = gradients
        largest = max(float((plain[name] - cached_ones[name]).abs().max()) for name in plain)
        print(f"largest difference of loss or gradient: {largest:.1e}, largest gradient "
              f"{max(float(each.abs().max()) for each in plain.values()):.1e}")  # fmt: skip
    return None


def _measure(given: Measured) -> None:
    model = OpticalStudent.from_checkpoint(str(quickstart_model()))
    texts = [" ".join(f"{(row * 37 + place * 11) % 9973}" for place in range(given.words)) for row in range(10**4)]
    row = {"query_language": "en", "document_language": "en", "scores": None}
    rows = Dataset.from_list(
        [
            row
            | {"query": text[: len(text) // 4], "passages": [text], "docids": [str(place)], "positives": [str(place)]}
            for place, text in enumerate(texts[: given.batch_size])
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        size = given.encode_batch_size if given.cached else None
        args = OpticalRetrievalArguments(folder, use_cpu=True, report_to="none", encode_batch_size=size)
        trainer = OpticalRetrievalTrainer(model, args, rows)
        batch = trainer.data_collator(list(rows))
        model.train()
        before, began = psutil.Process().memory_info().rss, time.perf_counter()
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e9
        name = "cached" if given.cached else "plain"
        print(f"{name}: {taken:.2f} GB, {time.perf_counter() - began:.0f} s", flush=True)
    gradient = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    save_file(gradient | {"loss": loss.detach()}, str(given.gradient))


if __name__ == "__main__":
    run(main, sys.argv[1:])
