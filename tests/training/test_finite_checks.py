from __future__ import annotations

import pytest
import torch

from optical_hf.training.finite_checks import FiniteChecks


def test_what_is_not_finite_is_named_at_once_on_the_cpu():
    checks = FiniteChecks()
    checks.add(torch.ones(3, 2), 3, str)
    checks.add(torch.tensor(1.0), 1, str)
    values = torch.ones(3, 2)
    values[0, 1], values[2, 0] = float("nan"), float("inf")
    with pytest.raises(FloatingPointError, match=r"rows \[0, 2\]"):
        checks.add(values, 3, lambda rows: f"rows {rows}")
    checks.check()  # and is not named twice
