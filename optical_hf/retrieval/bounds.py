"""Bounds of the numbers that a user gives to an index, a search or an evaluation."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

MOST = 10**12  # far beyond any use, and far from where an integer of the machine overflows
MOST_GB = 1e6


def check_count(name: str, value: Any, most: int = MOST) -> None:
    """Refuse what is not a whole number from 1 to `most`, naming it.

    Args:
        name (`str`): what the user calls it, such as `"--depth"`.
        value: what was given.
        most (`int`, *optional*, defaults to 10**12): the largest that is allowed.

    Raises:
        ValueError: with name, value, and what is allowed.
    """
    allowed = f"at least 1, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        allowed = f"a whole number of {allowed}"
    elif int(value) > most:
        allowed = f"at most {most:,}, got {value}"
    elif int(value) >= 1:
        return
    raise ValueError(f"{name} must be {allowed}.")


def check_memory(name: str, value: Any) -> None:
    """Refuse what is not a number of gigabytes above 0, as [`check_count`] does; NaN and infinity are none."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= MOST_GB:
        raise ValueError(f"{name} must be a number above 0 and at most {MOST_GB:,.0f} (GB), got {value!r}.")
