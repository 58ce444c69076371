"""Published nDCG@10 on MIRACL dev, to set beside a figure of the same protocol."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ..data.languages import language_code
from ..data.miracl import PROTOCOLS


def published_scores(language: str, protocol: str) -> dict[str, float]:
    """What others published for one language of MIRACL v1.0 dev: nDCG@10 by system.

    Args:
        language (`str`):
            As [`languages.language_code`] reads it.
        protocol (`str`):
            One of [`miracl.PROTOCOLS`]. Only figures of the same protocol are returned: of `"rerank"` and `"judged"`
            there are none.

    Raises:
        ValueError: if there is no such protocol or language code.

    Example:
        >>> published_scores("sw", "full")["bm25"]
        0.3826
    """
    code = language_code(language)
    return {
        system: figures["ndcg@10"][code]
        for system, figures in _systems(protocol).items()
        if code in figures["ndcg@10"]
    }


def published_sources(protocol: str) -> dict[str, str]:
    """Where the figures of [`published_scores`] are from, by system."""
    return {system: figures["source"] for system, figures in _systems(protocol).items()}


def _systems(protocol: str) -> dict[str, Any]:
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}.")
    return _read().get(protocol, {})


@cache
def _read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("miracl_published.json").read_text("utf-8"))
    return content
