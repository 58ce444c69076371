"""The `evaluate` metric of this package, and how `evaluate.load` finds it."""

from __future__ import annotations

import functools
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

MIRACL_NDCG = Path(__file__).parent / "miracl_ndcg" / "miracl_ndcg.py"
NDCG = "ndcg@10"  # the measure that figures are compared by, as the metric names it


def register_metric() -> None:
    """Make `evaluate.load("miracl_ndcg")` and `evaluate.combine(["miracl_ndcg", ...])` load the metric shipped here.

    No file is written and nothing is asked of the network. Where `evaluate` is not imported yet, nothing happens
    before it is: it takes seconds. Calling it again changes nothing. Without it, `evaluate.load(str(MIRACL_NDCG))`
    loads the metric too.
    """
    if "evaluate.loading" in sys.modules:
        _teach(sys.modules["evaluate.loading"])
    elif not any(isinstance(finder, _EvaluateFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _EvaluateFinder())


def _teach(loading: ModuleType) -> None:
    factory = loading.evaluation_module_factory
    if hasattr(factory, "knows_miracl_ndcg"):
        return

    @functools.wraps(factory)
    def factory_with_miracl_ndcg(path: str, *args: Any, **kwargs: Any) -> Any:
        return factory(str(MIRACL_NDCG) if path == "miracl_ndcg" else path, *args, **kwargs)

    factory_with_miracl_ndcg.knows_miracl_ndcg = True  # type: ignore[attr-defined]
    loading.evaluation_module_factory = factory_with_miracl_ndcg  # type: ignore[attr-defined]


class _EvaluateFinder(MetaPathFinder):
    """Finds `evaluate.loading` as Python does, and teaches it the metric as soon as it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "evaluate.loading":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _TeachingLoader(name, spec.origin)
        return spec


class _TeachingLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _teach(module)
