"""Reading bitext from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..data.bitext import load_bitext
from ..files import write_text
from .comparison import Comparison, compare
from .setup import Setup, generate_texts


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure lines a second of short pairs; there is no peer, since others filter nothing."""
    lines = setup.size(200_000, 200)
    path = write_pairs(setup.folder / "bitext.tsv", lines)
    yield compare(
        f"load_bitext, {lines} pairs",
        lambda: load_bitext({"sw": path}),
        rounds=setup.rounds,
        amount=lines,
        unit="lines",
    )


def write_pairs(path: Path, lines: int) -> Path:
    """Write generated pairs of 4 to 8 words, of which none is dropped."""
    sides = (generate_texts(lines, seed, longest=8) for seed in (0, 1))
    write_text(path, "".join(f"{english}\t{other}\n" for english, other in zip(*sides, strict=True)))
    return path
