"""The machine: what it is, how fast it multiplies matrices, and how many operations something takes."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from .comparison import Now

PEERS = ("transformers", "sentence-transformers", "pot", "bm25s", "maxsim-cpu", "qdrant-edge-py")
PACKAGES = ("optical-hf", "torch", *PEERS, "pytrec-eval-terrier", "evaluate", "numpy")


def describe_machine(device: str) -> str:
    """Name the card, or the processor and its number of cores."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def package_versions() -> dict[str, str | None]:
    """Versions of this package and of all that it is compared to; `None` for what is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def matrix_rate(device: str, dtype: str, size: int, now: Now) -> float:
    """Floating-point operations a second of a product of two square matrices: the median of nine.

    Args:
        device, dtype (`str`): where, and of which numbers.
        size (`int`): rows and columns.
        now (`Callable`): the clock.
    """
    left, right = torch.randn(2, size, size, device=device, dtype=getattr(torch, dtype))
    for _ in range(3):
        left @ right
    rates = []
    for _ in range(9):
        began = now()
        left @ right
        rates.append(2 * size**3 / (now() - began))
    return median(rates)


def flop_counter() -> FlopCounterMode:
    """Make a counter of what is multiplied within it; torch's own leaves out attention on the CPU."""
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
            query, key, value
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(gradient, query, key, value)
        ),
    }
    return FlopCounterMode(display=False, custom_mapping=attention)
