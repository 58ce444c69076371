"""The `evaluate` metric of this package, and how `evaluate.load` finds it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

MIRACL_NDCG = Path(__file__).parent / "miracl_ndcg" / "miracl_ndcg.py"


def register_metric() -> None:
    """Make `evaluate.load("miracl_ndcg")` and `evaluate.combine(["miracl_ndcg", ...])` load the metric shipped here.

    No file is written and nothing is asked of the network. Calling it again changes nothing.
    """
    import evaluate.loading

    factory = evaluate.loading.evaluation_module_factory
    if hasattr(factory, "knows_miracl_ndcg"):
        return

    @functools.wraps(factory)
    def factory_with_miracl_ndcg(path: str, *args: Any, **kwargs: Any) -> Any:
        return factory(str(MIRACL_NDCG) if path == "miracl_ndcg" else path, *args, **kwargs)

    factory_with_miracl_ndcg.knows_miracl_ndcg = True  # type: ignore[attr-defined]
    evaluate.loading.evaluation_module_factory = factory_with_miracl_ndcg
