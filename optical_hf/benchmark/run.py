"""All measurements, one after the other, and the record of them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from statistics import mean
from typing import Any

import torch

from . import bitext, bm25, encoding, growth, maxsim, metric, package_import, step, transport
from .comparison import Comparison
from .machine import describe_machine, matrix_rate, package_versions
from .setup import Setup

logger = logging.getLogger(__name__)

MEASURES: dict[str, Callable[[Setup], Iterator[Comparison]]] = {
    "step": step.measure,
    "transport": transport.measure,
    "encoding": encoding.measure,
    "maxsim": maxsim.measure,
    "bm25": bm25.measure,
    "metric": metric.measure,
    "import": package_import.measure,
    "bitext": bitext.measure,
    "growth": growth.measure,
}


def run_benchmark(setup: Setup, only: Collection[str] = (), command: str = "") -> dict[str, Any]:
    """Run some measurements, or all, and return the record of them.

    Args:
        setup ([`Setup`]): what they share.
        only (`Collection[str]`, *optional*): names from `MEASURES`; by default all.
        command (`str`, *optional*): how the benchmark was started.

    Returns:
        `dict`: machine, versions, matrix rates and `comparisons`, ready for JSON.
    """
    torch.set_num_threads(setup.threads)
    os.environ["RAYON_NUM_THREADS"] = str(setup.threads)  # maxsim-cpu's
    dtypes = ["float32", "bfloat16"] if setup.device == "cuda" else ["float32"]
    size = setup.size(1024, 64, 8192)

    def rates() -> list[float]:
        return [matrix_rate(setup.device, dtype, size, setup.now) for dtype in dtypes]

    start, compared = rates(), []
    for name, measure in MEASURES.items():
        if not only or name in only:
            for comparison in measure(setup):
                compared.append((name, comparison))
                logger.info("Measured: %s", comparison.name)
    matrix_rates = dict(zip(dtypes, zip(start, rates(), strict=True), strict=True))
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(setup.device),
        "device": setup.device,
        "threads": setup.threads,
        "rounds": setup.rounds,
        "quick": setup.quick,
        "versions": package_versions(),
        "matrix_rates": matrix_rates,
        "comparisons": [
            {
                "measure": name,
                **asdict(comparison),
                "ratios": comparison.ratios,
                "share": comparison.share(mean(matrix_rates[comparison.dtype])),
            }
            for name, comparison in compared
        ],
    }
