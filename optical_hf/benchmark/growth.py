"""How time and memory grow with the size of what is done."""

from __future__ import annotations

import math
import multiprocessing
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch

from ..data.bitext import load_bitext
from ..retrieval.search import search
from .bitext import write_pairs
from .comparison import Comparison, cpu_now
from .setup import Setup, generate_texts, skewed_lengths, unit_vectors


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure sizes over a range of 1 to 10, each in a process of its own, whose peak of memory is told.

    The exponent is the slope of the logarithms: 1 if twice as much takes twice as long. Below, there is a part that
    does not grow.
    """
    smallest = {
        "bitext": setup.size(20_000, 50),
        "encoding": setup.size(16, 2, 400),
        "search": setup.size(500, 10, 2000),
    }
    alone = replace(setup, model=setup.checkpoint)  # without what is loaded
    # Processes of a server that has imported all, once. A fork of this one would start with its memory.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    for work, least in smallest.items():
        sizes = [round(least * factor) for factor in setup.size((1.0, math.sqrt(10), 10.0), (1.0, 10.0))]
        measured = []
        for size in sizes:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                measured.append(pool.submit(run_alone, alone, work, size).result())
        seconds, peaks = zip(*measured, strict=True)
        yield Comparison(
            name=f"growth of {work}, {sizes[0]} to {sizes[-1]}",
            ours=[seconds[-1]],
            amount=sizes[-1],
            unit={"bitext": "lines"}.get(work, "passages"),
            notes=[
                f"exponent {exponent(sizes, seconds):.2f}",
                f"peak memory {peaks[0] / 1e6:.0f} to {peaks[-1] / 1e6:.0f} MB",
            ],
        )


def run_alone(setup: Setup, work: str, size: int) -> tuple[float, int]:
    """Do the work in this process.

    Args:
        setup ([`Setup`]): what it shares with others.
        work (`str`): `"bitext"`, `"encoding"` or `"search"`.
        size (`int`): lines or passages.

    Returns:
        `tuple[float, int]`: seconds of the work itself, and the process's peak of memory in bytes.
    """
    torch.set_num_threads(setup.threads)
    call, now = {"bitext": _bitext, "encoding": _encoding, "search": _search}[work](setup, size)
    began = now()
    call()
    return now() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in kibibytes


def _bitext(setup: Setup, size: int) -> tuple[Callable[[], object], Callable[[], float]]:
    path = write_pairs(setup.folder / f"growth-{size}.tsv", size)
    return lambda: load_bitext({"sw": path}), cpu_now


def _encoding(setup: Setup, size: int) -> tuple[Callable[[], object], Callable[[], float]]:
    passages = generate_texts(size)
    setup.teacher.encode_tokens(passages[:2], "document")  # warm
    return lambda: setup.teacher.encode_tokens(passages, "document", show_progress=False), setup.now


def _search(setup: Setup, size: int) -> tuple[Callable[[], object], Callable[[], float]]:
    dim = setup.size(128, 16)
    queries, passages = (
        [each.to(setup.device) for each in unit_vectors(lengths, dim, seed)]
        for seed, lengths in enumerate(([16] * 32, skewed_lengths(size, 256, 0)))
    )
    names = [str(number) for number in range(size)]
    search(queries[:1], passages[:1], names[:1], ["q"])  # warm
    return lambda: search(queries, passages, names, [f"q{number}" for number in range(32)]), setup.now


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the line through the logarithms, by least squares."""
    x, y = ([math.log(value) for value in values] for values in (sizes, seconds))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    covered = sum((value - middle_x) * (other - middle_y) for value, other in zip(x, y, strict=True))
    return covered / sum((value - middle_x) ** 2 for value in x)
