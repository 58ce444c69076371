"""Importing the package in a fresh process, beside what it cannot do without."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from .comparison import Comparison, compare
from .setup import Setup


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure the seconds that the processor works for a process that imports and ends."""
    ours, peer = "import optical_hf", "import torch; from transformers import AutoModel, PreTrainedModel"
    if setup.quick:  # those above take seconds
        ours, peer = "import json", "import ast"

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    yield compare(ours, lambda: run(ours), peer, lambda: lambda: run(peer), rounds=setup.rounds, now=children_now)


def children_now() -> float:
    """Seconds that the processor has worked for processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
